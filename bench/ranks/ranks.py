#!/usr/bin/env python3
"""Steps of one model by 2 and 4 ranks on CPUs, and by 2 over links of several speeds, beside what the model of a step says.

Every rank has one thread and B / N rows. In each round three things run in turn, so that the machine's noise meets all:
N processes that share nothing, each with B / N rows (what a step costs without exchange, memory bandwidth shared); N ranks
over loopback; and, where network namespaces and a token bucket filter can be had (as root), 2 ranks in two namespaces
joined by a link of each speed. efficiency = seconds without exchange / seconds with it, the median of the rounds' ratios.
All of it for every batch B: an exchange costs the same for each, so a larger one shows what it is to a real run.

The model of a step: compute + max(0, transfer - hideable) + last, where transfer = bytes of the buckets but the last / link
speed, hideable = 2/3 of the compute (the backward pass), and last = the last bucket's bytes / link speed: it is full only when
the backward pass ends (it holds the embedding).

    .deps/bin/python bench/ranks/ranks.py build/release/allo-trainer -o bench/results/ranks.json
"""
import argparse
import collections
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from provenance import provenance  # noqa: E402

LINKS_MBIT = (10_000, 2_000, 500)
NAMESPACES = ("allo-bench-0", "allo-bench-1")
ADDRESSES = ("10.77.0.1", "10.77.0.2")


def shell(*command, check=True):
    return subprocess.run([str(word) for word in command], check=check, capture_output=True, text=True)


class Link:
    """Two network namespaces with a link between them whose two directions have a speed each; made and removed again."""

    @staticmethod
    def possible():
        made = shell("ip", "netns", "add", NAMESPACES[0], check=False)
        if made.returncode == 0:
            shell("ip", "netns", "del", NAMESPACES[0])
        return made.returncode == 0

    def __enter__(self):
        for name in NAMESPACES:
            shell("ip", "netns", "add", name)
        shell("ip", "link", "add", "veth-0", "netns", NAMESPACES[0], "type", "veth", "peer", "name", "veth-1", "netns",
              NAMESPACES[1])
        for i, name in enumerate(NAMESPACES):
            shell("ip", "-n", name, "addr", "add", f"{ADDRESSES[i]}/24", "dev", f"veth-{i}")
            shell("ip", "-n", name, "link", "set", f"veth-{i}", "up")
            shell("ip", "-n", name, "link", "set", "lo", "up")
        return self

    def set_speed(self, mbit):
        for i, name in enumerate(NAMESPACES):
            shell("tc", "-n", name, "qdisc", "replace", "dev", f"veth-{i}", "root", "tbf", "rate", f"{mbit}mbit", "burst",
                  "256kb", "latency", "20ms")

    def __exit__(self, *_):
        for name in NAMESPACES:
            shell("ip", "netns", "del", name, check=False)


def write_text(path, paragraphs=3000):
    pick = random.Random(1)
    words = ["".join(pick.choice("aeioudrstlnm") for _ in range(pick.randint(3, 8))) for _ in range(2000)]
    path.write_text("\n\n".join(" ".join(pick.choice(words) for _ in range(80)) for _ in range(paragraphs)))


class Bench:
    def __init__(self, trainer, folder, args):
        self.trainer, self.folder, self.args, self.runs = pathlib.Path(trainer).resolve(), folder, args, 0
        text = folder / "text.txt"
        write_text(text)
        digest = shell("sha256sum", text).stdout.split()[0]
        run = {"kind": "prepare", "trainer": "builtin", "tasks": [], "seed": 0, "tokenizer": {"vocabulary": 2000},
               "corpus": {"format": "text", "validation_fraction": 0.05,
                          "files": [{"name": text.name, "bytes": text.stat().st_size, "sha256": digest}]}}
        self.data = folder / "prepare/data"
        self.start("prepare", run, {"files": {digest: str(text)}}).wait()
        if not self.data.exists():
            raise SystemExit((folder / "prepare/stderr").read_text())

    def start(self, name, run, execution, prefix=()):
        directory = self.folder / name
        directory.mkdir()
        execution = {"run_id": name, "attempt": 1, "device": "cpu", "threads": 1, "checkpoint_interval_s": 1e6, **execution}
        (directory / "run.json").write_text(json.dumps({"contract_version": 1, "run": run, "execution": execution}))
        environment = {**os.environ, "ALLOMETRY_EVENTS": str(directory / "events"), "ALLOMETRY_RUN_DIR": str(directory)}
        return subprocess.Popen([*prefix, self.trainer, "--config", "run.json"], cwd=directory, env=environment,
                                stderr=(directory / "stderr").open("w"), stdout=subprocess.DEVNULL)

    def steps(self, batch):
        """Fewer of a larger batch, but two."""
        return max(2, self.args.steps * min(self.args.batch) // batch)

    def pretrain(self, rows, steps):
        a = self.args
        shape = {"encoder_layers": a.layers, "decoder_layers": a.layers, "d_model": a.d_model, "d_ff": 4 * a.d_model,
                 "heads": a.d_model // 32, "d_kv": 32, "vocabulary": 8128}
        return {"kind": "pretrain", "trainer": "builtin", "data": "d" * 64, "seed": 0, "batch_sequences": rows,
                "model": {"architecture": "transformer", "options": {}, "shape": shape}, "steps": steps,
                "objective": {"name": "span_corruption", "input_length": a.input_length, "noise_density": 0.15,
                              "mean_span_length": 3.0},
                "evaluation": {"examples": 1}}

    def finish(self, name, processes):
        codes = [process.wait() for process in processes]
        if any(codes):
            raise SystemExit(f"{name} ended with {codes}: " + (self.folder / f"{name}-0/stderr").read_text())
        return json.loads((self.folder / f"{name}-0/events").read_text().splitlines()[-1])

    def alone(self, batch, ranks):
        """Seconds of a step of processes that share nothing but the machine."""
        name = f"alone-{self.runs}"
        self.runs += 1
        run = self.pretrain(batch // ranks, self.steps(batch))
        ending = self.finish(name, [self.start(f"{name}-{r}", run, {"inputs": {"data": str(self.data)}})
                                    for r in range(ranks)])
        return {"seconds": ending["metrics"]["device_seconds"] / run["steps"]}

    def together(self, batch, ranks, namespaces=None):
        name = f"together-{self.runs}"
        self.runs += 1
        processes, run = [], self.pretrain(batch, self.steps(batch))
        for r in range(ranks):
            execution = {"inputs": {"data": str(self.data)}, "rank": r, "ranks": ranks, "sharding": "none",
                         "rendezvous": str(self.folder / f"{name}-word")}
            prefix = ()
            if namespaces:
                execution["listen"], prefix = ADDRESSES[r], ("ip", "netns", "exec", NAMESPACES[r])
            processes.append(self.start(f"{name}-{r}", run, execution, prefix))
        ending = self.finish(name, processes)
        report, metrics = ending["report"], ending["metrics"]
        steps = run["steps"]
        return {"seconds": metrics["device_seconds"] / ranks / steps, "sent_bytes": report["sent_bytes"] / steps,
                "wait_seconds": report["exchange_wait_seconds"] / steps, "parameters": metrics["parameters"],
                "last_bucket_bytes": report["last_bucket_bytes"]}


def median(rows, key):
    return statistics.median(row[key] for row in rows)


def predicted(compute, ranks, gradient_bytes, last_bytes, mbit):
    per_second = mbit * 1e6 / 8
    share = 2 * (ranks - 1) / ranks
    transfer = share * (gradient_bytes - last_bytes) / per_second
    return compute + max(0.0, transfer - compute * 2 / 3) + share * last_bytes / per_second


def row_of(batch, ranks, link, alone, together):
    compute, seconds = median(alone, "seconds"), median(together, "seconds")
    gradient_bytes, last = 4 * together[0]["parameters"], together[0]["last_bucket_bytes"]
    row = {"batch": batch, "ranks": ranks, "link_mbit": link, "compute_seconds": compute, "step_seconds": seconds,
           "efficiency": statistics.median(a["seconds"] / t["seconds"] for a, t in zip(alone, together)),
           "sent_bytes": median(together, "sent_bytes"),
           "ring_bound_bytes": 2 * (ranks - 1) / ranks * gradient_bytes, "wait_seconds": median(together, "wait_seconds"),
           "parameters": together[0]["parameters"], "last_bucket_bytes": last}
    if link:
        row["predicted_seconds"] = predicted(compute, ranks, gradient_bytes, last, link)
        row["predicted_efficiency"] = compute / row["predicted_seconds"]
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trainer")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12, help="of the smallest batch, in every process (12)")
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64], help="sequences a step (16 64)")
    parser.add_argument("--d-model", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--input-length", type=int, default=256)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="allometry-ranks-") as folder:
        bench = Bench(args.trainer, pathlib.Path(folder), args)
        links = LINKS_MBIT if Link.possible() else ()
        alone, together = collections.defaultdict(list), collections.defaultdict(list)
        for _ in range(args.rounds):
            for batch in args.batch:
                for n in (2, 4):
                    alone[batch, n].append(bench.alone(batch, n))
                    together[batch, n, None].append(bench.together(batch, n))
                for link in links:
                    with Link() as made:
                        made.set_speed(link)
                        together[batch, 2, link].append(bench.together(batch, 2, NAMESPACES))
    settings = {**vars(args), "output": None, "trainer": pathlib.Path(args.trainer).name}
    rows = [row_of(batch, n, link, alone[batch, n], runs) for (batch, n, link), runs in together.items()]
    result = {**provenance("ranks"), "settings": settings, "rows": rows}
    if not links:
        result["skipped"] = "links: network namespaces cannot be made here"
    pathlib.Path(args.output).write_text(json.dumps(result, indent=2) + "\n")
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
