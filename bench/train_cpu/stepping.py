"""What the benchmarks of CPU training share: the case (sizes, batch, weights), Hugging Face's side, train_cpu's side, and
stepping both in turn."""

import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

import torch
import transformers
from safetensors.torch import load_file, save_file

SIZES = {
    "tiny": dict(encoder_layers=4, decoder_layers=4, d_model=256, d_ff=1024, heads=4, d_kv=64, vocabulary=32128),
    "small": dict(encoder_layers=6, decoder_layers=6, d_model=512, d_ff=2048, heads=8, d_kv=64, vocabulary=32128),
}
BATCH, INPUTS, TARGETS = 4, 512, 114
TOKENS = BATCH * (INPUTS + TARGETS)
LOGITS_TOLERANCE = 1e-4
ATTENTIONS = ("eager", "sdpa")
WARM_UP = 2
EXPERTS, CAPACITIES = 32, {"encoder": 19, "decoder": 4}  # Switch's slots at these lengths: SCIENCE section 4


def t5_config(shape, attention):
    return transformers.T5Config(
        vocab_size=shape["vocabulary"], d_model=shape["d_model"], d_kv=shape["d_kv"], d_ff=shape["d_ff"],
        num_layers=shape["encoder_layers"], num_decoder_layers=shape["decoder_layers"], num_heads=shape["heads"],
        dropout_rate=0.0, decoder_start_token_id=0, feed_forward_proj="relu", use_cache=False,
        attn_implementation=attention)


def switch_model(shape, attention):
    config = transformers.SwitchTransformersConfig(
        vocab_size=shape["vocabulary"], d_model=shape["d_model"], d_kv=shape["d_kv"], d_ff=shape["d_ff"],
        num_layers=shape["encoder_layers"], num_decoder_layers=shape["decoder_layers"], num_heads=shape["heads"],
        num_experts=EXPERTS, dropout_rate=0.0, decoder_start_token_id=0, use_cache=False, attn_implementation=attention)
    # It derives these from the depth; they are set after constructing. Experts in the 2nd, 6th, ... layer.
    config.encoder_sparse_step = config.decoder_sparse_step = 4
    model = transformers.SwitchTransformersForConditionalGeneration(config)
    for name, module in model.named_modules():
        if name.endswith("mlp.router"):
            module.expert_capacity = CAPACITIES[name.split(".")[0]]
    return model


def hugging_face_model(architecture, shape, attention):
    torch.manual_seed(1)
    if architecture == "switch":
        return switch_model(shape, attention).train()
    return transformers.T5ForConditionalGeneration(t5_config(shape, attention)).train()


def supported_attentions(architecture):
    probe = dict(encoder_layers=1, decoder_layers=1, d_model=8, d_ff=8, heads=1, d_kv=8, vocabulary=8)
    supported = []
    for attention in ATTENTIONS:
        try:
            hugging_face_model(architecture, probe, attention)
            supported.append(attention)
        except ValueError:  # "does not support an attention implementation through ..."
            pass
    return supported


class HuggingFace:
    """Forward, backward and fused AdamW of a model with `architecture`'s form."""

    def __init__(self, case, attention, precision):
        self.model = hugging_face_model(case.architecture, case.shape, attention)
        if precision != "fp32":
            self.model = self.model.to(torch.bfloat16)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.inputs, self.targets = case.batch

    def step(self):
        start = time.perf_counter()
        loss = self.model(input_ids=self.inputs, labels=self.targets).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss = loss.item()
        seconds = time.perf_counter() - start
        assert loss == loss, "Hugging Face's loss is not a number"
        return seconds


class Ours:
    """The program train_cpu, which answers one command at a time."""

    def __init__(self, program, case, precision, threads):
        self.process = subprocess.Popen([program, case.spec_file, case.batch_file, precision, str(threads)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"train_cpu ended with code {self.process.wait()}")
        return answer.strip()

    def step(self):
        seconds, loss = map(float, self.ask("step").split())
        assert loss == loss, "the loss is not a number"
        return seconds

    def seconds(self, command):
        return float(self.ask(command))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Case:
    """An architecture at a size with one random batch, written to `folder` for train_cpu. With `weights` (of Hugging
    Face's model) both sides start equal."""

    def __init__(self, folder, architecture, size, options=None, weights=False):
        self.architecture, self.size, self.shape = architecture, size, SIZES[size]
        self.spec_file, self.batch_file = folder / "spec.json", folder / "batch.safetensors"
        self.logits_file = folder / "logits.safetensors"
        generator = torch.Generator().manual_seed(3)
        self.batch = tuple(torch.randint(2, self.shape["vocabulary"], (BATCH, length), generator=generator)
                           for length in (INPUTS, TARGETS))
        tensors = {}
        if weights:
            model = hugging_face_model(architecture, self.shape, "eager")
            tensors = {n: p.detach().contiguous() for n, p in model.named_parameters()}
        save_file({**tensors, "inputs": self.batch[0], "targets": self.batch[1]}, self.batch_file)
        self.spec_file.write_text(
            json.dumps({"architecture": architecture, "shape": self.shape, "options": options or {}}))

    def logits_error(self, program, threads):
        """Largest difference of the two sides' logits in float32; ends the program where they are not the same model."""
        ours = Ours(program, self, "fp32", threads)
        assert ours.ask(f"logits {self.logits_file}") == "ok"
        ours.close()
        with torch.no_grad():
            model = hugging_face_model(self.architecture, self.shape, "eager").eval()
            expected = model(input_ids=self.batch[0], labels=self.batch[1]).logits
        error = (load_file(self.logits_file)["logits"] - expected).abs().max().item()
        print(f"{self.architecture} {self.size}: logits differ by {error:.1e}", flush=True)
        if not error <= LOGITS_TOLERANCE:
            sys.exit(f"logits differ by {error}, more than {LOGITS_TOLERANCE}: nothing is timed")
        return error


def measure(runners, rounds):
    """Seconds that each function of `runners` returns, called in turn; the first rounds warm up."""
    seconds = {name: [] for name in runners}
    for turn in range(rounds + WARM_UP):
        for name, run in runners.items():
            taken = run()
            if turn >= WARM_UP:
                seconds[name].append(taken)
    return seconds


def medians(seconds):
    return {name: statistics.median(values) for name, values in seconds.items()}


def ratio(seconds, other, ours):
    """How many times as fast `ours` is: the median over rounds, whose two sides ran one after the other."""
    return statistics.median(o / own for o, own in zip(seconds[other], seconds[ours]))


def fastest(seconds, prefix):
    """Of the sides whose name starts with `prefix` the one with the least median."""
    return min((name for name in seconds if name.startswith(prefix)), key=medians(seconds).get)


def machine():
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    return {"cpu": cpu or platform.processor(), "cores": os.cpu_count(), "load_at_start": os.getloadavg()[0]}


def commit():
    folder = pathlib.Path(__file__).parent
    return subprocess.run(["git", "-C", folder, "rev-parse", "--short=12", "HEAD"], capture_output=True,
                          text=True).stdout.strip()


def facts(benchmark, args):
    """What stands at the head of a result."""
    return {"benchmark": benchmark, "date": datetime.datetime.now(datetime.timezone.utc).isoformat("T", "seconds"),
            "commit": commit(), "machine": machine(), "threads": args.threads, "rounds": args.rounds, "batch": BATCH,
            "lengths": [INPUTS, TARGETS], "torch": torch.__version__, "transformers": transformers.__version__}


def add_arguments(parser):
    parser.add_argument("program", help="the built train_cpu")
    parser.add_argument("-o", "--output", help="where to write the result as JSON")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
