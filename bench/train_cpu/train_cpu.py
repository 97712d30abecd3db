#!/usr/bin/env python3
"""Seconds per training step of `transformer` against Hugging Face's T5ForConditionalGeneration on the same CPU threads.

Both sides take one step in turn, so that a machine's drift hits both: forward, backward and fused AdamW of batch 4 at 512/114
tokens, no dropout. Hugging Face runs with each attention that its T5 has (eager, and SDPA where the version offers it) and the
faster one counts. Before anything is
timed, the logits of both sides must agree to 1e-4 on the same weights in float32.

bf16: weights, gradients and optimiser in bfloat16 on both sides. bf16_masters: what allo-trainer does (float32 masters),
against the same Hugging Face steps.

    .deps/bin/python bench/train_cpu/train_cpu.py build/release/train_cpu -o bench/results/train_cpu.json
"""

import argparse
import json
import pathlib
import tempfile

import stepping
import torch


def compare(case, precision, args):
    runners = {f"huggingface_{a}": stepping.HuggingFace(case, a, precision)
               for a in stepping.supported_attentions("transformer")}
    ours = {"allometry": stepping.Ours(args.program, case, precision, args.threads)}
    if precision == "bf16":
        ours["allometry_masters"] = stepping.Ours(args.program, case, "bf16_masters", args.threads)
    seconds = stepping.measure({name: runner.step for name, runner in {**runners, **ours}.items()}, args.rounds)
    for runner in ours.values():
        runner.close()
    best, median = stepping.fastest(seconds, "huggingface"), stepping.medians(seconds)
    row = {"size": case.size, "precision": precision, "huggingface_attention": best.split("_")[1],
           "median_seconds": median, "seconds": seconds,
           "ratios": {name: stepping.ratio(seconds, best, name) for name in ours}}
    for name, ratio in row["ratios"].items():
        print(f"{case.size} {precision}: {name} {median[name]:.3f} s, {best} {median[best]:.3f} s a step: "
              f"{ratio:.2f} times as fast", flush=True)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stepping.add_arguments(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = {**stepping.facts("train_cpu", args), "logits_error": {}, "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        for size in args.sizes:
            case = stepping.Case(pathlib.Path(folder), "transformer", size, weights=True)
            result["logits_error"][size] = case.logits_error(args.program, args.threads)
            result["rows"] += [compare(case, precision, args) for precision in args.precisions]
    if args.output:
        pathlib.Path(args.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
