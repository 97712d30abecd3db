#!/usr/bin/env python3
"""The memory that `allo arch show` predicts of every architecture, for gpu.py's item `memory`, which runs where `allo` may be missing.

    python bench/gpu/memory_cells.py --allo build/release/allo -o memory_cells.json

What the process itself takes in the host's memory is left out.
"""
import argparse
import json
import pathlib
import subprocess

CASES = [("tiny", 4, "fp32"), ("tiny", 32, "bf16"), ("small", 16, "bf16")]
INPUT_LENGTH = 512


def output_of(*command):
    return json.loads(subprocess.run([*command, "--format", "json"], check=True, capture_output=True, text=True).stdout)


def cells_of(allo):
    for architecture in (row["architecture"] for row in output_of(allo, "arch", "list", "--size", "tiny")["architectures"]):
        for size, batch, precision in CASES:
            costs = output_of(allo, "arch", "show", architecture, "--size", size, "--batch", str(batch), "--input-length", str(INPUT_LENGTH),
                              "--precision", precision)
            yield {"architecture": architecture, "size": size, "batch": batch, "precision": precision, "input_length": INPUT_LENGTH,
                   "shape": costs["shape"], "options": costs["options"], "predicted_bytes": costs["memory_bytes"] - costs["process_bytes"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--allo", required=True)
    parser.add_argument("-o", "--output", required=True)
    options = parser.parse_args()
    pathlib.Path(options.output).write_text(json.dumps(list(cells_of(options.allo)), indent=1) + "\n")


if __name__ == "__main__":
    main()
