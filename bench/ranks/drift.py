#!/usr/bin/env python3
"""How far float32 losses of 2 and 4 ranks drift from those of one, architecture by architecture.

The same small model, batches and draws on 1, 2 and 4 processes; sums of gradients alone are added up in another order. Of each
number of ranks: the relative difference of the first step's loss and gradient norm, the largest one of any step's loss up to
the last, and that of the validation loss at the end.

    .deps/bin/python bench/ranks/drift.py build/release/allo-trainer -o bench/results/ranks_drift.json
"""
import argparse
import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from provenance import provenance  # noqa: E402
from ranks import Bench  # noqa: E402

RANKS = (2, 4)
# The fewest layers of a stack that an architecture takes, and the lengths that mixer is built for.
LAYERS = {"evolved": 2, "funnel": 5, "albert": 2, "switch": 4}
MIXER = {"input_length": 48, "target_length": 12}
ARCHITECTURES = ("transformer", "evolved", "funnel", "dconv", "glu", "albert", "lconv", "mixer", "mos", "performer", "switch",
                 "universal")


def run_of(architecture, steps):
    layers = LAYERS.get(architecture, 1)
    return {"kind": "pretrain", "trainer": "builtin", "data": "d" * 64, "seed": 3, "batch_sequences": 9, "steps": steps, "dropout": 0.1,
            "model": {"architecture": architecture, "options": MIXER if architecture == "mixer" else {},
                      "shape": {"encoder_layers": layers, "decoder_layers": layers, "d_model": 16, "d_ff": 32, "heads": 2, "d_kv": 8,
                                "vocabulary": 8128}},
            "objective": {"name": "span_corruption", "input_length": 32, "noise_density": 0.15, "mean_span_length": 3.0},
            "optimizer": {"name": "adafactor", "learning_rate": 0.01, "schedule": "constant", "clip_norm": 1.0},
            "evaluation": {"examples": 64}}


def train(bench, architecture, ranks, steps):
    """Its losses and gradient norms by step, and its validation loss."""
    name = f"{architecture}-{ranks}"
    gang = {"ranks": ranks, "rendezvous": str(bench.folder / f"{name}-word")} if ranks > 1 else {}
    processes = [bench.start(f"{name}-{r}", run_of(architecture, steps),
                             {"inputs": {"data": str(bench.data)}, "log_every": 1, **gang, **({"rank": r} if gang else {})})
                 for r in range(ranks)]
    ending = bench.finish(name, processes)
    points = [e["values"] for e in map(json.loads, (bench.folder / f"{name}-0/events").read_text().splitlines())
              if e["event"] == "metric" and "train/loss" in e["values"]]
    return [p["train/loss"] for p in points], [p["train/grad_norm"] for p in points], ending["metrics"]["validation_loss"]


def difference(one, other):
    return abs(other / one - 1)


def measure(bench, architecture, steps):
    losses, norms, validation = train(bench, architecture, 1, steps)
    for ranks in RANKS:
        other_losses, other_norms, other_validation = train(bench, architecture, ranks, steps)
        row = {"architecture": architecture, "ranks": ranks, "first_loss": difference(losses[0], other_losses[0]),
               "first_gradient_norm": difference(norms[0], other_norms[0]),
               "largest_loss": max(map(difference, losses, other_losses)), "validation_loss": difference(validation, other_validation)}
        print("  ".join(f"{k} {v:.1e}" if isinstance(v, float) else str(v) for k, v in row.items()), flush=True)
        yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trainer")
    parser.add_argument("-o", "--output", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.trainer, pathlib.Path(folder), args)
        rows = [row for architecture in args.architectures for row in measure(bench, architecture, args.steps)]
    settings = {"steps": args.steps, "precision": "fp32", "input_length": 32, "batch_sequences": 9}
    if args.output:
        args.output.write_text(json.dumps({**provenance("ranks_drift"), "settings": settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
