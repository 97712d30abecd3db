#!/usr/bin/env python3
"""Training steps of every architecture on a CPU: seconds, tokens a second, GFLOP/s and their share of the machine's peak.

A step is forward, backward and fused AdamW of batch 4 at 512/114 tokens, no dropout; its FLOPs are the exact ones that
arch/ counts, three times the forward pass. The peak is the fastest of the square matrix products that run in turn with the
steps, in the same precision, on the same threads. bf16: weights, gradients and optimiser in bfloat16.

`transformer` and `switch` (with `placement: huggingface`, and as many slots on both sides) run in turn with Hugging Face's
models on equal weights, whose logits must agree first; its fastest attention counts. Of `lconv` and `dconv` the convolution
alone, forward and backward at the encoder's shape, runs in turn with PyTorch's grouped convolution (conv1d, one group a
channel, in its own layout). dconv's has a kernel, with its softmax, for every position, which no grouped convolution has: that
is the same work but for the kernel, and the same function written with `unfold` stands beside it.

    .deps/bin/python bench/zoo_cpu/zoo_cpu.py build/release/train_cpu -o bench/results/zoo_cpu.json

Rows that the output already holds are replaced if they are measured again and kept if not, so that a run can go in pieces;
each row carries its own date, commit and load.
"""

import argparse
import datetime
import json
import os
import pathlib
import sys
import tempfile
import time

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "train_cpu"))
import stepping  # noqa: E402

OPTIONS = {"switch": {"placement": "huggingface"}}
HUGGING_FACE, CONVOLUTIONS = ("transformer", "switch"), ("lconv", "dconv")
ARCHITECTURES = ("transformer", "albert", "dconv", "evolved", "funnel", "glu", "lconv", "mixer", "mos", "performer",
                 "switch", "universal")
PRODUCT_SIZE = 2048
WIDTH = 9
GOALS = {("tiny", "fp32"): 1.3, ("small", "fp32"): 1.1, ("tiny", "bf16"): 1.5, ("small", "bf16"): 1.4}


class GroupedConvolution:
    """PyTorch's: x [b, c, t], one kernel a channel."""

    def __init__(self, channels, dtype):
        self.x = torch.randn(stepping.BATCH, channels, stepping.INPUTS).to(dtype).requires_grad_(True)
        self.kernel = torch.randn(channels, 1, WIDTH).to(dtype).requires_grad_(True)
        self.dy = torch.randn_like(self.x)

    def forward(self):
        return torch.nn.functional.conv1d(self.x, self.kernel, padding=WIDTH // 2, groups=self.x.shape[1])

    def step(self):
        self.x.grad = self.kernel.grad = None
        start = time.perf_counter()
        self.forward().backward(self.dy)
        return time.perf_counter() - start


class UnfoldedConvolution(GroupedConvolution):
    """The dynamic convolution in PyTorch's operators: x [b, t, c], a kernel for every position and channel."""

    def __init__(self, channels, dtype):
        self.x = torch.randn(stepping.BATCH, stepping.INPUTS, channels).to(dtype).requires_grad_(True)
        self.kernel = torch.randn(stepping.BATCH, stepping.INPUTS, channels, WIDTH).to(dtype).requires_grad_(True)
        self.dy = torch.randn_like(self.x)

    def forward(self):
        padded = torch.nn.functional.pad(self.x, (0, 0, WIDTH // 2, WIDTH // 2))
        return (padded.unfold(1, WIDTH, 1) * self.kernel.softmax(-1)).sum(-1)


def convolution_row(case, ours, dtype, rounds):
    channels = case.shape["d_model"]
    runners = {"grouped": GroupedConvolution(channels, dtype).step}
    if case.architecture == "dconv":
        runners["unfold"] = UnfoldedConvolution(channels, dtype).step
    runners["allometry"] = lambda: ours.seconds("convolution")
    seconds = stepping.measure(runners, max(rounds, 15))  # each takes milliseconds
    row = {"median_seconds": stepping.medians(seconds),
           "ratios": {name: stepping.ratio(seconds, name, "allometry") for name in runners if name != "allometry"}}
    for name, ratio in row["ratios"].items():
        print(f"    its convolution: {row['median_seconds']['allometry'] * 1e3:.2f} ms, PyTorch's {name} "
              f"{row['median_seconds'][name] * 1e3:.2f} ms: {ratio:.2f} times as fast", flush=True)
    return row


def step_row(case, ours, precision, args):
    runners = {}
    if case.architecture in HUGGING_FACE:
        runners = {f"huggingface_{a}": stepping.HuggingFace(case, a, precision).step
                   for a in stepping.supported_attentions(case.architecture)}
    seconds = stepping.measure(
        {**runners, "allometry": ours.step, "product": lambda: ours.seconds(f"product {PRODUCT_SIZE}")}, args.rounds)
    median, flops = stepping.medians(seconds), int(ours.ask("flops"))
    peak = 2 * PRODUCT_SIZE ** 3 / min(seconds["product"]) / 1e9
    gflops = flops / median["allometry"] / 1e9
    row = {"seconds_per_step": median["allometry"], "tokens_per_second": stepping.TOKENS / median["allometry"],
           "training_flops_per_step": flops, "gflops": gflops, "peak_gflops": peak, "share_of_peak": gflops / peak,
           "parts_seconds": dict(zip(("forward", "backward", "optimizer"), map(float, ours.ask("parts").split()))),
           "seconds": seconds}
    print(f"{case.architecture} {case.size} {precision}: {median['allometry']:.3f} s a step, "
          f"{row['tokens_per_second']:.0f} tokens/s, {gflops:.0f} of {peak:.0f} GFLOP/s: {gflops / peak:.0%}", flush=True)
    if runners:
        best = stepping.fastest(seconds, "huggingface")
        row["huggingface"] = {"attention": best.split("_")[1], "median_seconds": median[best],
                              "ratio": stepping.ratio(seconds, best, "allometry"),
                              "goal": GOALS[case.size, precision]}
        print(f"    {best}: {median[best]:.3f} s: {row['huggingface']['ratio']:.2f} times as fast, goal "
              f"{row['huggingface']['goal']}", flush=True)
    return row


def measure_row(case, precision, args):
    row = {"architecture": case.architecture, "size": case.size, "precision": precision,
           "options": OPTIONS.get(case.architecture, {}), "commit": stepping.commit(), "load": os.getloadavg()[0],
           "date": datetime.datetime.now(datetime.timezone.utc).isoformat("T", "seconds")}
    ours = stepping.Ours(args.program, case, precision, args.threads)
    row |= step_row(case, ours, precision, args)
    if case.architecture in CONVOLUTIONS:
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        row["convolution"] = convolution_row(case, ours, dtype, args.rounds)
    ours.close()
    return row


def by_key(rows):
    return {(row["architecture"], row["size"], row["precision"]): row for row in rows}


def write(path, result):
    """Keeps the rows of an earlier run that this one has not measured."""
    rows = by_key(json.loads(path.read_text())["rows"]) if path.exists() else {}
    rows |= by_key(result["rows"])
    path.write_text(json.dumps({**result, "rows": [rows[k] for k in sorted(rows)]}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stepping.add_arguments(parser)
    parser.add_argument("--architectures", nargs="+", default=list(ARCHITECTURES), choices=ARCHITECTURES)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = {**stepping.facts("zoo_cpu", args), "rows": []}
    for size in args.sizes:
        for architecture in args.architectures:
            with tempfile.TemporaryDirectory() as folder:
                beside = architecture in HUGGING_FACE
                case = stepping.Case(pathlib.Path(folder), architecture, size, OPTIONS.get(architecture), weights=beside)
                if beside:
                    case.logits_error(args.program, args.threads)
                result["rows"] += [measure_row(case, precision, args) for precision in args.precisions]
            if args.output:
                write(pathlib.Path(args.output), result)


if __name__ == "__main__":
    main()
