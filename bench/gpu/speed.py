"""Items 1 and 2: training steps by allo-trainer, beside the matrix products' peak and Hugging Face's T5."""
import importlib.util
import json
import pathlib
import subprocess
import sys
import time

import kernel_trace
import trainer_process
from trainer_process import Failed, median

FOLDER = pathlib.Path(__file__).resolve().parent
STEPS = {"nano": 12, "tiny": 72, "small": 48, "base": 24, "large": 12}  # six metric points, of which two warm up
BATCH, LENGTH, TARGETS = 128, 512, 114
PEAK_SIDE, PEAK_PRODUCTS = 8192, 30
GOALS = {"base": [("share of the products' peak", 0.40), ("times Hugging Face compiled", 1.5)], "tiny": [("times Hugging Face eager", 3.0)]}
# What is tried first, where the whole batch is known not to fit an H200; smaller ones are found by halving.
FIRST_MICRO = {"large": 32, "evolved": 64, "mos": 64, "performer": 32, "universal": 16}
GUESS_S = {"allometry": 20, "eager": 30, "compile": 100}
THEIRS_AT_MOST_S = 240


class Peak:
    """FLOP/s of large bf16 products on random data, asked for between the steps of both sides."""

    def __init__(self, torch, device):
        self.torch, self.device, self.on_gpu = torch, device, device != "cpu"
        self.side, self.products = (PEAK_SIDE, PEAK_PRODUCTS) if self.on_gpu else (512, 3)

    def measure(self):
        torch = self.torch
        a, b = (torch.randn(self.side, self.side, device=self.device).to(torch.bfloat16) for _ in range(2))
        for count in (3, self.products):
            self.wait()
            start = time.perf_counter()
            for _ in range(count):
                a @ b
            self.wait()
            taken = time.perf_counter() - start
        del a, b
        if self.on_gpu:
            torch.cuda.empty_cache()
        return 2 * self.side ** 3 * self.products / taken

    def wait(self):
        if self.on_gpu:
            self.torch.cuda.synchronize()


class Speed:
    def __init__(self, context):
        self.c, self.options = context, context.options
        self.peak = Peak(context.torch, self.options.device)
        self.batch, self.length = self.options.batch or BATCH, self.options.input_length or LENGTH
        self.took = dict(GUESS_S)

    def ours(self, architecture, size, name, clock, micro=None, environment=None):
        steps = STEPS[size]
        micro = micro or min(self.batch, *(FIRST_MICRO.get(key, self.batch) for key in (size, architecture)))
        outcome, micro = self.c.trainer.fitting(
            name, architecture, self.c.trainer.shape(size), self.options.device, "bf16", batch=self.batch, micro_batch=micro,
            length=self.length, steps=steps, log_every=steps // 6, options=trainer_process.options_of(architecture, size), environment=environment,
            limit=max(clock.left(), 10))
        metrics = outcome.metrics()
        return outcome, {"seconds_per_step": outcome.seconds_per_step(2), "micro_batch": micro, "peak_memory": metrics["peak_memory_bytes"],
                         "forward_flops": metrics["forward_flops"], "data_wait_fraction": metrics.get("data_wait_fraction"), "graph_launches": outcome.report().get("graph_launches")}

    def theirs(self, size, mode, micro, clock):
        """Hugging Face's T5 in a process of its own."""
        if importlib.util.find_spec("transformers") is None:
            raise Failed("transformers is not there")
        command = [sys.executable, str(FOLDER / "hugging_face.py"), "--size", size, "--mode", mode, "--batch", str(self.batch), "--device",
                   self.options.device, "--input-length", str(self.length), "--steps", str(max(2, STEPS[size] // 6))]
        limit = max(min(clock.left(), THEIRS_AT_MOST_S), 10)
        try:
            done = subprocess.run(command + (["--micro", str(micro)] if micro else []), capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            raise Failed(f"ran longer than {limit:.0f} s") from None
        if done.returncode:
            raise Failed(done.stderr.strip()[-300:] or f"exit code {done.returncode}")
        return json.loads(done.stdout.splitlines()[-1])

    def figures(self, side, forward_flops, peak):
        seconds = median(side["seconds_per_step"])
        return {"tokens_per_s": self.batch * self.length / seconds,
                "share_of_peak": 3 * forward_flops * self.batch / seconds / peak}

    # ---- Item 1.

    def take_turn(self, row, size, side, clock):
        """One process of a side, behind one measurement of the peak."""
        known = row["sides"].setdefault(side, {"seconds_per_step": []})
        if "skipped" in known:
            return
        if clock.left() < self.took[side]:
            if not known["seconds_per_step"]:
                row["sides"][side] = {"skipped": f"the time was up: {clock.left():.0f} s were left"}
            return
        row["peak_flops"].append(self.peak.measure())
        start = time.monotonic()
        try:
            if side == "allometry":
                found = self.ours("transformer", size, f"{size}-{side}", clock, known.get("micro_batch"))[1]
                row["forward_flops"] = found["forward_flops"]
            else:
                found = self.theirs(size, side, known.get("micro_batch"), clock)
            row["sides"][side] = {**found, "seconds_per_step": known["seconds_per_step"] + [median(found["seconds_per_step"])]}
        except Failed as failed:
            row["sides"][side] = {"skipped": str(failed)}
        self.took[side] = 1.2 * (time.monotonic() - start)

    def compare(self, row, size):
        ours = row["sides"]["allometry"]
        peak = median(row["peak_flops"]) if row["peak_flops"] else None
        for side in row["sides"].values():
            if "skipped" not in side and "forward_flops" in row:
                side.update(self.figures(side, row["forward_flops"], peak))
        row["times"] = {name: median([their / own for their, own in zip(side["seconds_per_step"], ours["seconds_per_step"])])
                        for name, side in row["sides"].items() if name != "allometry" and "skipped" not in side and "skipped" not in ours}
        values = {"share of the products' peak": ours.get("share_of_peak"), "times Hugging Face compiled": row["times"].get("compile"),
                  "times Hugging Face eager": row["times"].get("eager")}
        row["goals"] = [{"goal": goal, "wanted": wanted, "value": values[goal], "hit": values[goal] is not None and values[goal] >= wanted}
                        for goal, wanted in GOALS.get(size, [])]

    def transformer(self, clock):
        for size in self.options.sizes or ("base", "tiny", "small", "large"):
            if self.c.rows.has(1, size):
                continue
            if clock.left() < self.took["allometry"]:
                self.c.rows.skip(1, size, "the time was up")
                continue
            row = {"batch": self.batch, "lengths": [self.length, TARGETS if self.length == LENGTH else None], "precision": "bf16",
                   "optimizer": "fused AdamW", "peak_flops": [], "sides": {}}
            for turn in range(self.options.rounds):
                for side in ("allometry", "eager", "compile"):
                    self.take_turn(row, size, side, clock)
                    self.compare(row, size)
                    if "skipped" in row["sides"]["allometry"]:
                        break
                    self.c.rows.put(1, size, row)
            if "skipped" in row["sides"]["allometry"]:
                self.c.rows.skip(1, size, row["sides"]["allometry"]["skipped"])
                continue
            self.say(size, row)

    def say(self, size, row):
        for name, side in row["sides"].items():
            print(f"item 1, {size}, {name}: " + (f"not measured: {side['skipped']}" if "skipped" in side else
                  f"{side['tokens_per_s']:.3g} tokens/s, {side['share_of_peak']:.1%} of the peak, micro-batch {side['micro_batch']}, "
                  f"{(side['peak_memory'] or 0) / 2**30:.1f} GiB"), flush=True)
        for goal in row["goals"]:
            value = "not measured" if goal["value"] is None else f"{goal['value']:.2f}, {'hit' if goal['hit'] else 'miss'}"
            print(f"item 1, {size}: goal {goal['goal']} {goal['wanted']}: {value}", flush=True)

    # ---- Item 2.

    def trace_of(self, architecture, size, micro, share_of_peak, clock):
        name = f"trace-{architecture}"
        try:
            if not self.c.trace_library:
                raise kernel_trace.NoTrace(self.c.no_trace)
            path = self.c.trainer.work / f"{name}.trace"
            environment = {"CUDA_INJECTION64_PATH": str(self.c.trace_library), "ALLOMETRY_TRACE": str(path)}
            outcome = self.ours(architecture, size, name, clock, micro, environment)[0]
            points = outcome.step_times()[1:]
            (start, first), (end, last) = points[0], points[-1]
            return kernel_trace.shares(kernel_trace.read(path, start, end), start, end, last - first)
        except (kernel_trace.NoTrace, Failed) as why:
            return {**kernel_trace.derived(share_of_peak), "no_records": str(why)}

    def architectures(self, clock):
        size = (self.options.sizes or ["base"])[0]
        for architecture in self.options.architectures or trainer_process.ARCHITECTURES:
            name = f"{architecture} {size}"
            if self.c.rows.has(2, name):
                continue
            if clock.left() < 2 * self.took["allometry"]:
                self.c.rows.skip(2, name, "the time was up")
                continue
            start = time.monotonic()
            try:
                before = self.peak.measure()
                side = self.ours(architecture, size, architecture, clock)[1]
                peak = (before + self.peak.measure()) / 2
                side.update(self.figures(side, side["forward_flops"], peak))
                where = self.trace_of(architecture, size, side["micro_batch"], side["share_of_peak"], clock)
            except Failed as failed:
                self.c.rows.skip(2, name, str(failed))
                continue
            self.took["allometry"] = 0.6 * (time.monotonic() - start)
            self.c.rows.put(2, name, {"architecture": architecture, "size": size, "batch": self.batch, "precision": "bf16", "peak_flops": peak,
                                      **side, "time": where})
            print(f"item 2, {name}: {side['tokens_per_s']:.3g} tokens/s, {side['share_of_peak']:.1%} of the peak, "
                  f"{where['outside_products']:.0%} of the time outside products; {where['bound_by']}", flush=True)
