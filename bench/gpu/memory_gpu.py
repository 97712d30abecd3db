#!/usr/bin/env python3
"""The memory that `allo arch show` predicts against what the GPU's allocator reserved at its peak.

    python bench/gpu/memory_gpu.py predict --allo build/release/allo -o cells.json
    python bench/gpu/memory_gpu.py measure --cells cells.json --trainer build/trainer/allo-trainer --data PREPARED -o bench/results/memory_gpu.json

Two steps, because a machine with a GPU may have the trainer alone. PREPARED is the output folder of a `prepare` run. The
prediction leaves out what the process itself takes in the host's memory.
"""
import argparse
import concurrent.futures
import json
import pathlib
import shutil
import subprocess
import tempfile
import time

from trainer_gpu import Bench

CASES = [("tiny", 4, "fp32"), ("tiny", 32, "bf16"), ("small", 16, "bf16")]
INPUT_LENGTH = 512
AT_ONCE = 4


def output_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def predict(options):
    listed = json.loads(output_of(options.allo, "arch", "list", "--size", "tiny", "--format", "json"))["architectures"]
    cells = []
    for architecture in (row["architecture"] for row in listed):
        for size, batch, precision in CASES:
            costs = json.loads(output_of(options.allo, "arch", "show", architecture, "--size", size, "--batch", str(batch),
                                         "--input-length", str(INPUT_LENGTH), "--precision", precision, "--format", "json"))
            cells.append({"architecture": architecture, "size": size, "batch": batch, "precision": precision,
                          "shape": costs["shape"], "options": costs["options"],
                          "predicted_bytes": costs["memory_bytes"] - costs["process_bytes"]})
    pathlib.Path(options.output).write_text(json.dumps(cells, indent=1) + "\n")


def measure(options):
    version = output_of(options.trainer, "--version").strip()
    device, = [d["name"] for d in json.loads(output_of(options.trainer, "--probe"))["devices"] if d["device"] == options.device]
    work = pathlib.Path(tempfile.mkdtemp(prefix="memory_gpu_"))
    bench = Bench(options.trainer, options.data, work)

    def row(cell):
        name = "-".join(str(cell[key]) for key in ("architecture", "size", "batch", "precision"))
        peak = bench.run(name, cell["architecture"], cell["shape"], options.device, cell["precision"], steps=3, batch=cell["batch"],
                         length=INPUT_LENGTH, options=cell["options"])["metrics"]["peak_memory_bytes"]
        shutil.rmtree(work / name)
        print(f"{name}: predicted / measured {cell['predicted_bytes'] / peak:.3f}", flush=True)
        return {**{key: cell[key] for key in ("architecture", "size", "batch", "precision", "predicted_bytes")},
                "measured_bytes": peak, "ratio": cell["predicted_bytes"] / peak}

    try:
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            rows = list(pool.map(row, json.loads(pathlib.Path(options.cells).read_text())))
    finally:
        shutil.rmtree(work)
    report = {"bench": "memory_gpu", "version": version, "device": device, "date": time.strftime("%Y-%m-%d"),
              "input_length": INPUT_LENGTH, "rows": rows}
    pathlib.Path(options.output).write_text(json.dumps(report, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for verb, run, required in (("predict", predict, ["allo"]), ("measure", measure, ["cells", "trainer", "data"])):
        sub = verbs.add_parser(verb)
        sub.set_defaults(run=run)
        for name in required:
            sub.add_argument(f"--{name}", required=True)
        sub.add_argument("-o", "--output", required=True)
        if verb == "measure":
            sub.add_argument("--device", default="cuda:0")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
