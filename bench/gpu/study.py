#!/usr/bin/env python3
"""A plan's pretraining cells by allo-trainer alone, where there is no coordinator: several side by side, in pieces.

    allo plan examples/one_gpu_study.yaml --data-root DIR --offline --format json > plan.json
    python bench/gpu/study.py prepare --plan plan.json --trainer build/release/allo-trainer --data-root DIR -o PREPARED
    python bench/gpu/study.py run --plan plan.json --trainer build/trainer/allo-trainer --data PREPARED -o STUDY --slots 4 --limit 460
    allo import STUDY/results/runs.csv --name one-gpu-study --db study.db
    allo report one-gpu-study --db study.db -o report.html
    allo slopes one-gpu-study --db study.db --format csv | python bench/gpu/study.py paper

`run` ends with code 0 when every cell is done, and with 40 when it stopped before, at its limit or by SIGTERM: the same command
goes on from the checkpoints. STUDY/results (the table, and each cell's events) is small and all that another machine needs to
go on; STUDY/work has the checkpoints of cells that are not done. Cells that fine-tune are not run: they need `allo`.
"""
import argparse
import csv
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

DONE, STOPPED, CONFIGURATION, DATA, DIVERGED, OUT_OF_MEMORY = 0, 40, 42, 43, 44, 45
ATTEMPTS = 3
LOOK_EVERY_S = 0.05
MEMORY_SHARE = 0.9
METRICS = ("parameters", "non_embedding_parameters", "active_parameters", "forward_flops", "training_flops", "tokens", "steps",
           "validation_loss", "text_loss", "unigram_loss", "bits_per_byte", "peak_memory_bytes", "device_seconds", "tokens_per_second")
OF_THE_DEVICE = ("device_seconds", "tokens_per_second")  # of a cell that had the device for itself
GRAPHS = "metric.graph_launches"  # steps of the last attempt that were a graph, under a name that `allo import` takes
COLUMNS = ("cell", "architecture", "size", "seed", "state", "device", *METRICS, GRAPHS)
# Slopes that are known of Tay et al. 2022, arXiv 2207.10551, Table 2: (relation, architecture) -> slope.
PAPER = {("F,U", "transformer"): 0.54, ("F,U", "performer"): 0.25, ("F,D", "transformer"): 0.28, ("F,D", "albert"): -0.12}
AXES = {"F": "flops", "U": "upstream", "D": "downstream"}  # as `allo slopes` names them


def replace(path, text):
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(text)
    os.replace(temporary, path)


def events_of(path):
    """The complete lines of a file of events."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


@dataclasses.dataclass
class Cell:
    name: str
    run: dict
    flops: float
    memory: float

    def architecture(self):
        """The label and the size, of a name `label-size-sN`."""
        stem = self.name.removesuffix(f"-s{self.run['seed']}")
        label = self.run["model"]["architecture"]
        if not stem.startswith(label + "-"):
            label = stem.partition("-")[0]
        return label, stem[len(label) + 1:]


def read_plan(path):
    """(the cell that prepares, those that pretrain, names of the others)"""
    prepare, cells, others = None, [], []
    for cell in json.loads(pathlib.Path(path).read_text())["cells"]:
        kind = cell["run"].get("kind", "pretrain")
        if kind == "prepare" and prepare is None:
            prepare = cell["run"]
        elif kind == "pretrain":
            cells.append(Cell(cell["cell"], cell["run"], cell["training_flops"] or 0, cell["memory_bytes"] or 0))
        else:
            others.append(cell["cell"])
    return prepare, cells, others


# ---- Preparing.

def wanted_files(run):
    """(sha256, name or None) of the raw files that a preparation reads."""
    corpus, model = run["corpus"], run.get("tokenizer", {}).get("model_sha256")
    files = [(file["sha256"], file["name"]) for file in corpus.get("files", []) + corpus.get("valid_files", [])]
    return files + ([(model, None)] if model else [])


def find_files(run, root):
    wanted = dict(wanted_files(run))
    names, found = {name for name in wanted.values() if name}, {}
    for path in sorted(p for p in pathlib.Path(root).rglob("*") if p.is_file() and (p.name in names or p.suffix == ".model")):
        with open(path, "rb") as file:
            found.setdefault(hashlib.file_digest(file, "sha256").hexdigest(), str(path.resolve()))
    missing = [name or "the tokenizer's model" for sha, name in wanted.items() if sha not in found]
    if missing:
        raise SystemExit(f"below {root} there is no file with the plan's bytes for: {', '.join(missing)}")
    return {sha: found[sha] for sha in wanted}


def prepare(options):
    run, _, _ = read_plan(options.plan)
    if run is None:
        raise SystemExit(f"{options.plan} has no cell that prepares text")
    output = pathlib.Path(options.output)
    folder = output.with_name(output.name + ".work").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    execution = {"run_id": "study", "attempt": 1, "device": "cpu", "threads": options.threads or os.cpu_count(),
                 "files": find_files(run, options.data_root)}
    (folder / "run.json").write_text(json.dumps({"contract_version": 1, "run": run, "execution": execution}))
    code = subprocess.run([str(pathlib.Path(options.trainer).resolve()), "--config", "run.json"], cwd=folder,
                          env=environment(folder)).returncode
    if code:
        raise SystemExit(code)
    os.rename(folder / "data", output)
    shutil.rmtree(folder)
    size = sum(p.stat().st_size for p in output.rglob("*"))
    print(f"{output}: {size / 1e6:.1f} MB")
    return 0


def environment(folder):
    return {**os.environ, "ALLOMETRY_EVENTS": str(folder / "events"), "ALLOMETRY_RUN_DIR": str(folder), "ALLOMETRY_CONTRACT": "1"}


def check_data(run, folder):
    """The folder must be what the plan's cell prepares: its identity stands in every cell."""
    described = pathlib.Path(folder) / "data.json"
    if not described.exists():
        raise SystemExit(f"{folder} is no prepared folder: it has no data.json")
    recipe = json.loads(described.read_text()).get("recipe", {})
    differ = [key for key in ("corpus", "tokenizer", "seed") if run and recipe.get(key) != run.get(key)]
    if differ:
        raise SystemExit(f"{folder} was prepared from another {' and '.join(differ)} than the plan says: see `study.py prepare`, "
                         "or give --any-data and compare with nothing else")


# ---- Running.

class Study:
    def __init__(self, options, cells):
        self.options, self.cells = options, cells
        self.trainer, self.data = str(pathlib.Path(options.trainer).resolve()), str(pathlib.Path(options.data).resolve())
        self.results, self.work = pathlib.Path(options.output) / "results", pathlib.Path(options.output).resolve() / "work"
        for folder in (self.results, self.work):
            folder.mkdir(parents=True, exist_ok=True)
        self.end = time.monotonic() + options.limit if options.limit else float("inf")
        self.stopping, self.started, self.flops_done = False, time.monotonic(), 0.0
        self.running = {}  # cell's name -> (cell, process)

    def state_of(self, cell):
        """done, diverged, failed, or pending."""
        events = events_of(self.results / f"{cell.name}.jsonl")
        if any(e["event"] == "result" for e in events):
            return "done"
        ended = [e["state"] for e in events if e["event"] == "study"]
        return ended[-1] if ended else "pending"

    def memory_of(self, name):
        """What this driver remembers of a cell between calls."""
        path = self.work / name / "study.json"
        return json.loads(path.read_text()) if path.exists() else {"crashes": 0, "micro_batch": 0}

    def remember(self, name, memory):
        replace(self.work / name / "study.json", json.dumps(memory))

    def device_memory(self):
        if self.options.device == "cpu":
            return float("inf")
        probe = json.loads(subprocess.run([self.trainer, "--probe"], check=True, capture_output=True, text=True).stdout)
        return next(d["memory_bytes"] for d in probe["devices"] if d["device"] == self.options.device) * MEMORY_SHARE

    def start(self, cell):
        folder = self.work / cell.name
        folder.mkdir(exist_ok=True)
        memory = self.memory_of(cell.name)
        execution = {"run_id": cell.name, "attempt": memory["crashes"] + 1, "device": self.options.device, "threads": self.options.threads,
                     "precision": self.options.precision or cell.run.get("precision", "auto"), "inputs": {"data": self.data},
                     "keep_final": False, "checkpoint_interval_s": self.options.checkpoint_interval,
                     "kernels": self.options.device != "cpu"}
        if memory["micro_batch"]:
            execution["micro_batch"] = memory["micro_batch"]
        (folder / "run.json").write_text(json.dumps({"contract_version": 1, "run": cell.run, "execution": execution}))
        with open(folder / "stderr", "w") as errors:
            process = subprocess.Popen([*self.options.launcher, self.trainer, "--config", "run.json"], cwd=folder,
                                       env=environment(folder), stdout=subprocess.DEVNULL, stderr=errors)
        self.running[cell.name] = (cell, process)
        print(f"{self.clock()} {cell.name}: started", flush=True)

    def clock(self):
        return f"{time.monotonic() - self.started:6.1f} s"

    def conclude(self, cell, process):
        """A process that has ended: a result, a reason to try again, or the end of the cell."""
        folder, code = self.work / cell.name, process.returncode
        events = events_of(folder / "events")
        if code == DONE and any(e["event"] == "result" for e in events):
            self.flops_done += cell.flops
            self.settle(cell, events)
        elif code == DIVERGED:
            self.settle(cell, [*events, {"event": "study", "state": "diverged"}])
        elif code != STOPPED and not (self.stopping and code < 0):  # stopped by us before it could listen, or behind the grace period
            self.failed(cell, code, events)
        steps = [e["step"] for e in events if "step" in e]
        print(f"{self.clock()} {cell.name}: {self.state_of(cell)}, exit code {code}, step {steps[-1] if steps else 0}", flush=True)

    def settle(self, cell, events):
        replace(self.results / f"{cell.name}.jsonl", "".join(json.dumps(e) + "\n" for e in events))
        shutil.rmtree(self.work / cell.name)
        self.write_table()

    def failed(self, cell, code, events):
        reason = (self.work / cell.name / "stderr").read_text(errors="replace").strip()[-300:]
        print(f"{cell.name}: {reason}", file=sys.stderr, flush=True)
        memory = self.memory_of(cell.name)
        memory["crashes"] += 1
        if code == OUT_OF_MEMORY:
            told = [e["micro_batch"] for e in events if e["event"] == "out_of_memory"]
            tried = told[-1] if told else memory["micro_batch"] or cell.run["batch_sequences"]
            memory["micro_batch"] = max(1, tried // 2)
        self.remember(cell.name, memory)
        if code in (CONFIGURATION, DATA) or memory["crashes"] >= ATTEMPTS:
            self.settle(cell, [*events, {"event": "study", "state": "failed", "code": code, "reason": reason}])

    def write_table(self):
        rows = []
        for cell in self.cells:
            if self.state_of(cell) == "pending":
                continue
            events = events_of(self.results / f"{cell.name}.jsonl")
            result = next((e for e in reversed(events) if e["event"] == "result"), {"metrics": {}})
            start = next((e for e in events if e["event"] == "start"), {})
            architecture, size = cell.architecture()
            alone = self.options.slots == 1
            rows.append({"cell": cell.name, "architecture": architecture, "size": size, "seed": cell.run["seed"],
                         "state": self.state_of(cell), "device": start.get("device", ""),
                         **{m: result["metrics"].get(m, "") for m in METRICS if alone or m not in OF_THE_DEVICE},
                         GRAPHS: result.get("report", {}).get("graph_launches", "")})
        path = self.results / "runs.csv"
        with open(path.with_name("runs.csv.partial"), "w", newline="") as file:
            writer = csv.DictWriter(file, [c for c in COLUMNS if self.options.slots == 1 or c not in OF_THE_DEVICE])
            writer.writeheader()
            writer.writerows(rows)
        os.replace(file.name, path)

    def fits(self, cell):
        """A free slot, the device's memory, and with --whole the time that is left."""
        if len(self.running) >= self.options.slots or self.stopping or cell.name in self.running:
            return False
        if self.running and sum(other.memory for other, _ in self.running.values()) + cell.memory > self.device_bytes:
            return False
        if not self.options.whole or not self.flops_done:
            return True
        each = self.flops_done / (time.monotonic() - self.started) / self.options.slots
        return cell.flops / each < self.end - time.monotonic() - self.options.grace

    def stop(self):
        """SIGTERM to all, which answer with a checkpoint; SIGKILL behind the grace period."""
        self.stopping = True
        for _, process in self.running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        until = time.monotonic() + self.options.grace
        for _, process in self.running.values():
            try:
                process.wait(max(until - time.monotonic(), 0.01))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def collect(self):
        for name, (cell, process) in list(self.running.items()):
            if process.poll() is not None:
                del self.running[name]
                self.conclude(cell, process)

    def run(self):
        self.device_bytes = self.device_memory()
        self.write_table()
        # The longest first, so that the slots end together.
        pending = sorted((c for c in self.cells if self.state_of(c) == "pending"), key=lambda c: -c.flops)
        while True:
            self.collect()
            pending = [c for c in pending if self.state_of(c) == "pending"]
            if self.stopping or time.monotonic() > self.end - self.options.grace:
                break
            for cell in pending:
                if self.fits(cell):
                    self.start(cell)
            if not self.running:
                break
            time.sleep(LOOK_EVERY_S)
        self.stop()
        self.collect()
        return self.tell()

    def tell(self):
        states = [self.state_of(c) for c in self.cells]
        left = states.count("pending")
        print(f"{self.clock()} {len(states) - left} of {len(states)} cells are over: {states.count('done')} done, {states.count('diverged')} diverged, "
              f"{states.count('failed')} failed; {self.results / 'runs.csv'}", flush=True)
        return STOPPED if left else 0


def run(options):
    preparation, cells, others = read_plan(options.plan)
    if not options.any_data:
        check_data(preparation, options.data)
    chosen = [c for c in cells if re.search(options.cells, c.name)]
    if others:
        print(f"not run here: {', '.join(others)}")
    study = Study(options, chosen)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(study, "stopping", True))
    return study.run()


# ---- Beside the paper.

def beside_paper(options):
    """Measured slopes, each with its interval, beside those that are known of the paper."""
    with sys.stdin if options.slopes == "-" else open(options.slopes) as file:
        measured = {(row["architecture"], row["x"], row["y"]): row for row in csv.DictReader(file)}
    print(f"{'slope':8}{'architecture':14}{'measured':30}the paper's")
    for (relation, architecture), value in PAPER.items():
        x, y = relation.split(",")
        row = measured.get((architecture, AXES[x], AXES[y]), {})
        print(f"a({relation}){'':2}{architecture:14}{with_interval(row):30}{value:.2f}")
    print("the paper: Tay et al. 2022, arXiv 2207.10551; F FLOPs, U -loss, D score. How it transforms its axes is not known: compare signs and order, not values")
    return 0


def with_interval(row):
    if not row.get("alpha"):
        return "not measured"
    kind = next((k for k in ("seed", "line") if row[f"{k}_low"]), None)
    return f"{float(row['alpha']):.3f}" + (f" ({kind} {float(row[f'{kind}_low']):.3f} to {float(row[f'{kind}_high']):.3f})" if kind else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for verb, function, text in (("prepare", prepare, "the plan's text, where SentencePiece is"), ("run", run, "the plan's cells, or a piece of them")):
        sub = verbs.add_parser(verb, help=text)
        sub.set_defaults(function=function)
        sub.add_argument("--plan", required=True, help="what `allo plan --format json` printed")
        sub.add_argument("--trainer", required=True)
        sub.add_argument("-o", "--output", required=True)
    paper = verbs.add_parser("paper", help="slopes beside those that are known of the paper")
    paper.set_defaults(function=beside_paper)
    paper.add_argument("slopes", nargs="?", default="-", help="what `allo slopes --format csv` printed; default: standard input")
    verbs.choices["prepare"].add_argument("--data-root", required=True, help="raw files, found below it by their hashes")
    verbs.choices["prepare"].add_argument("--threads", type=int)
    add = verbs.choices["run"].add_argument
    add("--data", required=True, help="what `prepare` left")
    add("--any-data", action="store_true", help="take a folder that another recipe prepared")
    add("--device", default="cuda:0")
    add("--precision", help="default: the plan's")
    add("--threads", type=int, default=2, help="of each cell")
    add("--slots", type=int, default=1, help="cells at once; above 1 the table has no seconds, which would not be comparable")
    add("--limit", type=float, help="seconds of this call, stopping included; default none")
    add("--grace", type=float, default=20, help="of the limit: what stopping may take before SIGKILL")
    add("--whole", action="store_true", help="start no cell that would not end within the limit at the speed seen so far")
    add("--cells", default="", metavar="REGEX", help="of the plan's cells only these")
    add("--checkpoint-interval", type=float, default=60)
    add("--launcher", nargs="+", default=[], help="put before the trainer's command: python3 for a script")
    options = parser.parse_args()
    return options.function(options)


if __name__ == "__main__":
    sys.exit(main())
