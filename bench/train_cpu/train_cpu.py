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
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import torch
import transformers
from safetensors.torch import load_file, save_file

SIZES = {
    "tiny": dict(encoder_layers=4, decoder_layers=4, d_model=256, d_ff=1024, heads=4, d_kv=64, vocabulary=32128),
    "small": dict(encoder_layers=6, decoder_layers=6, d_model=512, d_ff=2048, heads=8, d_kv=64, vocabulary=32128),
}
BATCH, INPUTS, TARGETS = 4, 512, 114
LOGITS_TOLERANCE = 1e-4
ATTENTIONS = ("eager", "sdpa")


def hugging_face_model(shape, attention):
    torch.manual_seed(1)
    config = transformers.T5Config(
        vocab_size=shape["vocabulary"], d_model=shape["d_model"], d_kv=shape["d_kv"], d_ff=shape["d_ff"],
        num_layers=shape["encoder_layers"], num_decoder_layers=shape["decoder_layers"], num_heads=shape["heads"],
        dropout_rate=0.0, decoder_start_token_id=0, feed_forward_proj="relu", use_cache=False,
        attn_implementation=attention)
    return transformers.T5ForConditionalGeneration(config).train()


def supported_attentions():
    probe = dict(encoder_layers=1, decoder_layers=1, d_model=8, d_ff=8, heads=1, d_kv=8, vocabulary=8)
    supported = []
    for attention in ATTENTIONS:
        try:
            hugging_face_model(probe, attention)
            supported.append(attention)
        except ValueError:  # "does not support an attention implementation through ..."
            pass
    return supported


class HuggingFace:
    def __init__(self, shape, attention, precision, batch):
        self.model = hugging_face_model(shape, attention)
        if precision != "fp32":
            self.model = self.model.to(torch.bfloat16)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.inputs, self.targets = batch

    def step(self):
        start = time.perf_counter()
        loss = self.model(input_ids=self.inputs, labels=self.targets).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss = loss.item()
        return time.perf_counter() - start, loss


class Ours:
    def __init__(self, program, spec, batch, precision, threads):
        self.process = subprocess.Popen([program, spec, batch, precision, str(threads)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"train_cpu ended with code {self.process.wait()}")
        return answer.strip()

    def step(self):
        seconds, loss = self.ask("step").split()
        return float(seconds), float(loss)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def write_case(folder, size):
    shape = SIZES[size]
    generator = torch.Generator().manual_seed(3)
    batch = (torch.randint(2, shape["vocabulary"], (BATCH, INPUTS), generator=generator),
             torch.randint(2, shape["vocabulary"], (BATCH, TARGETS), generator=generator))
    model = hugging_face_model(shape, "eager")
    weights = {n: p.detach().contiguous() for n, p in model.named_parameters()}
    save_file({**weights, "inputs": batch[0], "targets": batch[1]}, folder / f"{size}.safetensors")
    (folder / f"{size}.json").write_text(json.dumps({"architecture": "transformer", "shape": shape}))
    return batch


def check_logits(folder, size, batch, program, threads):
    ours = Ours(program, folder / f"{size}.json", folder / f"{size}.safetensors", "fp32", threads)
    assert ours.ask(f"logits {folder / 'logits.safetensors'}") == "ok"
    ours.close()
    with torch.no_grad():
        expected = hugging_face_model(SIZES[size], "eager")(input_ids=batch[0], labels=batch[1]).logits
    error = (load_file(folder / "logits.safetensors")["logits"] - expected).abs().max().item()
    print(f"{size}: logits differ by {error:.1e}", flush=True)
    if not error <= LOGITS_TOLERANCE:
        sys.exit(f"{size}: logits differ by {error}, more than {LOGITS_TOLERANCE}: nothing is timed")
    return error


def measure(runners, rounds):
    """Seconds of each runner, taken in turn; the first two rounds warm up."""
    seconds = {name: [] for name in runners}
    for turn in range(rounds + 2):
        for name, runner in runners.items():
            taken, loss = runner.step()
            assert loss == loss, f"{name}: the loss is not a number"
            if turn >= 2:
                seconds[name].append(taken)
    return seconds


def compare(folder, size, precision, batch, args):
    shape_file, batch_file = folder / f"{size}.json", folder / f"{size}.safetensors"
    runners = {f"huggingface_{a}": HuggingFace(SIZES[size], a, precision, batch) for a in supported_attentions()}
    ours = {"allometry": Ours(args.program, shape_file, batch_file, precision, args.threads)}
    if precision == "bf16":
        ours["allometry_masters"] = Ours(args.program, shape_file, batch_file, "bf16_masters", args.threads)
    seconds = measure({**runners, **ours}, args.rounds)
    for runner in ours.values():
        runner.close()
    best = min(runners, key=lambda name: statistics.median(seconds[name]))
    row = {"size": size, "precision": precision, "huggingface_attention": best.split("_")[1],
           "median_seconds": {name: statistics.median(s) for name, s in seconds.items()}, "seconds": seconds}
    row["ratios"] = {name: statistics.median(h / o for h, o in zip(seconds[best], seconds[name])) for name in ours}
    for name, ratio in row["ratios"].items():
        print(f"{size} {precision}: {name} {row['median_seconds'][name]:.3f} s, {best} "
              f"{row['median_seconds'][best]:.3f} s a step: {ratio:.2f} times as fast", flush=True)
    return row


def machine():
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    return {"cpu": cpu or platform.processor(), "cores": os.cpu_count(), "load_at_start": os.getloadavg()[0]}


def commit():
    folder = pathlib.Path(__file__).parent
    return subprocess.run(["git", "-C", folder, "rev-parse", "--short=12", "HEAD"], capture_output=True,
                          text=True).stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the built train_cpu")
    parser.add_argument("-o", "--output", help="where to write the result as JSON")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = {"benchmark": "train_cpu", "date": datetime.datetime.now(datetime.timezone.utc).isoformat("T", "seconds"),
              "commit": commit(), "machine": machine(), "threads": args.threads, "rounds": args.rounds,
              "batch": BATCH, "lengths": [INPUTS, TARGETS], "torch": torch.__version__,
              "transformers": transformers.__version__, "logits_error": {}, "rows": []}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for size in args.sizes:
            batch = write_case(folder, size)
            result["logits_error"][size] = check_logits(folder, size, batch, args.program, args.threads)
            result["rows"] += [compare(folder, size, precision, batch, args) for precision in args.precisions]
    if args.output:
        pathlib.Path(args.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
