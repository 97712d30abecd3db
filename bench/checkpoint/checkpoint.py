#!/usr/bin/env python3
"""How long training on a CPU stands still for a checkpoint, and what steps lose to the writing beside them.

In each round every trainer runs twice in turn, with checkpoints and (the first) without any, so that the machine's noise
meets all. stand_still_seconds: of one checkpoint, as the trainer reports it (report.checkpoint_seconds / checkpoints);
stand_still_share: of the time of all steps and checkpoints; slowdown: seconds of a step beside the writing over those of a
step in runs without checkpoints.

    .deps/bin/python bench/checkpoint/checkpoint.py build/release/allo-trainer [OTHER-TRAINER ...] -o bench/results/checkpoint.json
"""
import argparse
import json
import pathlib
import statistics
import sys
import tempfile

BENCH = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BENCH), str(BENCH / "ranks")]
from provenance import provenance  # noqa: E402
from ranks import Bench  # noqa: E402

NEVER_S = 1e6


def run(bench, trainer, interval_s):
    """One run: what its report and its events say of steps and checkpoints."""
    bench.trainer = pathlib.Path(trainer).resolve()
    name = f"run-{bench.runs}"
    bench.runs += 1
    execution = {"inputs": {"data": str(bench.data)}, "checkpoint_interval_s": interval_s, "threads": bench.args.threads}
    training = {**bench.pretrain(bench.args.batch), "optimizer": {"name": bench.args.optimizer}}
    ending = bench.finish(name, [bench.start(f"{name}-0", training, execution)])
    events = [json.loads(line) for line in (bench.folder / f"{name}-0/events").read_text().splitlines()]
    tensors = list((bench.folder / f"{name}-0").glob("checkpoint/step-*/tensors.safetensors"))
    row = {"parameters": ending["metrics"]["parameters"], "step_seconds": ending["metrics"]["device_seconds"] / bench.args.steps,
           "checkpoints": sum(event["event"] == "checkpoint" for event in events),
           "checkpoint_seconds": ending["report"]["checkpoint_seconds"],
           "checkpoint_bytes": tensors[0].stat().st_size if tensors else 0}
    for path in tensors:
        path.unlink()
    return row


def row_of(name, runs, plain_step_seconds, steps):
    each = [run["checkpoint_seconds"] / run["checkpoints"] for run in runs]
    shares = [run["checkpoint_seconds"] / (run["checkpoint_seconds"] + steps * run["step_seconds"]) for run in runs]
    step_seconds = statistics.median(run["step_seconds"] for run in runs)
    return {"trainer": name, "parameters": runs[0]["parameters"], "checkpoint_bytes": runs[0]["checkpoint_bytes"],
            "checkpoints": sum(run["checkpoints"] for run in runs), "stand_still_seconds": statistics.median(each),
            "stand_still_seconds_of_each_run": each, "stand_still_share": statistics.median(shares),
            "step_seconds": step_seconds, "slowdown": step_seconds / plain_step_seconds}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trainers", nargs="+")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--interval", type=float, default=5.0, help="seconds between checkpoints")
    parser.add_argument("--d-model", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--input-length", type=int, default=256)
    parser.add_argument("--optimizer", default="adamw")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="allometry-checkpoint-") as folder:
        bench = Bench(args.trainers[0], pathlib.Path(folder), args)
        plain, runs = [], {trainer: [] for trainer in args.trainers}
        for _ in range(args.rounds):
            plain.append(run(bench, args.trainers[0], NEVER_S))
            for trainer in args.trainers:
                runs[trainer].append(run(bench, trainer, args.interval))
    plain_seconds = statistics.median(one["step_seconds"] for one in plain)
    settings = {**vars(args), "output": None, "trainers": [pathlib.Path(trainer).name for trainer in args.trainers]}
    rows = [row_of(pathlib.Path(trainer).name, runs[trainer], plain_seconds, args.steps) for trainer in args.trainers]
    result = {**provenance("checkpoint"), "settings": settings, "plain_step_seconds": plain_seconds, "rows": rows}
    pathlib.Path(args.output).write_text(json.dumps(result, indent=2) + "\n")
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
