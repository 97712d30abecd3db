#!/usr/bin/env python3
"""allo-trainer and its kernels on one GPU, item by item:

    1             the Transformer's training step at tiny to large, beside the matrix products' peak and Hugging Face's T5
    2             every architecture at base: the same peak, and what the time outside of products goes to
    3             every kernel: bandwidth or FLOP/s, beside the device's and PyTorch's nearest operator
    4             loss curves in bf16 against a CPU's in float32
    resume        a run that was stopped, against one that was not
    memory        what `allo arch show` predicts (--memory-cells, by memory_cells.py) against the allocator's peak
    cpu-curves    the CPU's side of item 4, made where there is time

    python bench/gpu/gpu.py --trainer build/trainer/allo-trainer --data PREPARED -o gpu.json --only 1 3 --limit 300

PREPARED is the output folder of a `prepare` run. The JSON is whole after each row, and the same command goes on where it was:
a row that this device and program have is kept unless --again is given. Without a GPU every row says why it was skipped, and
the exit code is 0; --rehearse runs all of it on a CPU, at sizes that prove nothing but the program itself.
"""
import argparse
import json
import pathlib
import sys
import time
import traceback

import curves
import kernel_bench
import kernel_cases
import kernel_module
import kernel_trace
import speed
import trainer_process
from rows import Clock, Rows
from trainer_process import STOPPED, Failed

SHARES = {"1": 5, "2": 4, "3": 1.5, "4": 1.5, "resume": 1, "memory": 2, "cpu-curves": 1}  # of the time that is left
SETTLES_S = 0.002
STUDY = "5"


class Context:
    """What the items share: the options, the result, the trainer, PyTorch, and why one of them is missing."""

    def __init__(self, options, work):
        self.options = options
        self.trainer = trainer_process.Trainer(options.trainer, options.data, work) if options.trainer and options.data else None
        self.no_trainer = None if self.trainer else "--trainer and --data were not given"
        self.torch, self.no_gpu = self.look_for_gpu()
        self.facts = self.describe()
        self.rows = Rows(options.output, self.facts, options.again) if options.output else None
        self.trace_library, self.no_trace = None, None

    def look_for_gpu(self):
        """(torch, why there is no GPU to measure)"""
        try:
            import torch
        except ImportError:
            return None, "PyTorch is not there"
        if self.options.device != "cpu" and not torch.cuda.is_available():
            return torch, f"there is no {self.options.device} here"
        return torch, None

    def describe(self):
        facts = {"device": "cpu" if self.options.device == "cpu" else None, "version": None}
        if self.trainer:
            try:
                facts["version"] = self.trainer.version()
            except (OSError, ValueError) as error:
                self.no_trainer = f"{self.options.trainer} does not run: {error}"
        if self.torch:
            facts["torch"] = self.torch.__version__
            if not self.no_gpu and self.options.device != "cpu":
                facts["device"] = self.torch.cuda.get_device_name(self.options.device)
        return facts

    def prepare_trace(self):
        try:
            self.trace_library = kernel_trace.build_library(self.trainer.work)
        except (kernel_trace.NoTrace, OSError) as why:
            self.no_trace = str(why)


def kernels(context, clock):
    try:
        beside = pathlib.Path(context.options.trainer or "allo-trainer").resolve().with_name("liballometry-kernels.so")
        module = kernel_module.Module(context.options.kernels or beside, pathlib.Path(context.options.kernel_headers))
    except (OSError, kernel_module.Unreadable) as why:
        context.rows.skip(3, "all", f"no kernels: {why}")
        return
    bench = kernel_bench.Bench(context.torch, module, context.options.device)
    peak = speed.Peak(context.torch, context.options.device).measure()
    for name in module.names:
        if context.rows.has(3, name):
            continue
        if name not in kernel_cases.CASES:
            context.rows.skip(3, name, kernel_cases.UNTIMED.get(name, "bench/gpu/kernel_cases.py has no case for it"))
            continue
        if clock.left() < 5:
            context.rows.skip(3, name, "the time was up")
            continue
        try:
            row = kernel_bench.measure(bench, kernel_cases.CASES[name](bench), peak)
        except Exception as error:  # whatever one kernel does, the others have their rows
            context.rows.skip(3, name, f"{type(error).__name__}: {str(error)[:200]}")
            continue
        finally:
            if bench.on_gpu:
                context.torch.cuda.empty_cache()
        context.rows.put(3, name, row)
        say_kernel(name, row)


def say_kernel(name, row):
    parts = [f"item 3, {name}: error {row['error']:.1e}"]
    if "microseconds" in row:
        parts.append(f"{row['microseconds']['kernel']:.0f} us")
    if "share_of_bandwidth" in row:
        parts.append(f"{row['share_of_bandwidth']:.0%} of the copy's bandwidth, {'hit' if row['goals'][0]['hit'] else 'MISS'}")
    if "share_of_peak" in row:
        parts.append(f"{row['share_of_peak']:.0%} of the products' peak")
    if row.get("times_nearest"):
        parts.append(f"{row['times_nearest']:.2f} times as fast as {row['nearest']}")
    print(", ".join(parts + ([row["wrong"]] if "wrong" in row else [])), flush=True)


def resume(context, clock):
    """Stopped by SIGTERM behind its third checkpoint and resumed; the losses of the steps that both runs have."""
    if context.rows.has("resume", "transformer"):
        return
    keywords = dict(steps=300 if context.options.device != "cpu" else 40, log_every=10, batch=16, length=128, optimizer=curves.OPTIMIZER,
                    evaluation=32)
    what = ("transformer", context.trainer.shape("nano"), context.options.device, "fp32" if context.options.device == "cpu" else context.options.precision)
    try:
        running = context.trainer.start("stopped", *what, checkpoint_interval_s=0, **keywords)
        while running.process.poll() is None and sum(e["event"] == "checkpoint" for _, e in list(running.follower.arrivals)) < 3:
            time.sleep(SETTLES_S)
        running.stop()
        stopped = running.finish(max(clock.left(), 30))
        resumed = context.trainer.run("stopped", *what, **keywords)
        straight = context.trainer.run("straight", *what, **keywords)
    except Failed as failed:
        context.rows.skip("resume", "transformer", str(failed))
        return
    both = sorted(set(resumed.losses()) & set(straight.losses()))
    gaps = [abs(resumed.losses()[step] - straight.losses()[step]) for step in both]
    row = {"stopped": stopped.code, "resumed_step": resumed.starts()[-1], "first_gap": gaps[0], "last_gap": gaps[-1],
           "validation": [run.metrics()["validation_loss"] for run in (resumed, straight)]}
    context.rows.put("resume", "transformer", row)
    print(f"resume: {'stopped and ' if stopped.code == STOPPED else 'NOT stopped, '}resumed at step {row['resumed_step']}, losses differ by "
          f"{gaps[0]:.1e} and at the end by {gaps[-1]:.1e}", flush=True)


def memory(context, clock):
    path = pathlib.Path(context.options.memory_cells or "memory_cells.json")
    if not path.exists():
        context.rows.skip("memory", "all", f"there is no {path}: bench/gpu/memory_cells.py writes it where `allo` is")
        return
    for cell in json.loads(path.read_text()):
        name = "-".join(str(cell[key]) for key in ("architecture", "size", "batch", "precision"))
        if context.rows.has("memory", name):
            continue
        if clock.left() < 10:
            context.rows.skip("memory", name, "the time was up")
            continue
        try:
            outcome = context.trainer.run(name, cell["architecture"], cell["shape"], context.options.device, cell["precision"], steps=3,
                                          batch=cell["batch"], length=cell["input_length"], options=cell["options"])
        except Failed as failed:
            context.rows.skip("memory", name, str(failed))
            continue
        measured = outcome.metrics()["peak_memory_bytes"]
        context.rows.put("memory", name, {"predicted_bytes": cell["predicted_bytes"], "measured_bytes": measured,
                                          "ratio": cell["predicted_bytes"] / measured})
        print(f"memory, {name}: predicted / measured {cell['predicted_bytes'] / measured:.3f}", flush=True)


# In this order: a kernel that writes where it must not leaves no device to this process.
ITEMS = {"1": lambda context, clock: speed.Speed(context).transformer(clock),
         "2": lambda context, clock: speed.Speed(context).architectures(clock),
         "4": lambda context, clock: curves.Curves(context).on_gpu(clock), "resume": resume, "memory": memory,
         "cpu-curves": lambda context, clock: curves.Curves(context).on_cpu(clock), "3": kernels}
NAMES = {"1": lambda o: o.sizes or ["base", "tiny", "small", "large"],
         "2": lambda o: [f"{a} {(o.sizes or ['base'])[0]}" for a in o.architectures or trainer_process.ARCHITECTURES],
         "3": lambda o: ["all"], "4": lambda o: o.architectures or trainer_process.ARCHITECTURES, "resume": lambda o: ["transformer"],
         "memory": lambda o: ["all"]}


def why_not(context, item):
    needs_trainer = item != "3"
    if item == "cpu-curves":
        return context.no_trainer
    return context.no_gpu or (context.no_trainer if needs_trainer else None)


def measure(context, wanted, limit):
    clock = Clock(limit)
    order, broken = [item for item in ITEMS if item in wanted], []
    for place, item in enumerate(order):
        why = why_not(context, item)
        if why:
            for name in NAMES.get(item, lambda o: [])(context.options):
                context.rows.skip(int(item) if item.isdigit() else item, name, why)
            continue
        if item == "2":
            context.prepare_trace()
        start = time.monotonic()
        try:
            ITEMS[item](context, clock.part(SHARES[item] / sum(SHARES[later] for later in order[place:])))
        except Exception as error:  # the other items have their time
            traceback.print_exc()
            broken.append(item)
            if context.rows:
                context.rows.skip(int(item) if item.isdigit() else item, "all", f"{type(error).__name__}: {error}")
        print(f"item {item}: {time.monotonic() - start:.0f} s, {max(clock.left(), 0):.0f} s left", flush=True)
    return 1 if broken else 0


def rehearsed(options):
    """On a CPU, with models of seconds."""
    options.device, options.precision, options.rounds = "cpu", "fp32", 1
    options.sizes, options.batch, options.input_length = ["nano"], 4, 128
    return options


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", help="the built allo-trainer")
    parser.add_argument("--data", help="the output folder of a prepare run")
    parser.add_argument("--curves-data", help="of item 4: one with a small vocabulary; default: that of --data")
    parser.add_argument("--only", nargs="+", default=["1", "2", "3", "4"], choices=[*ITEMS, STUDY], metavar="ITEM", help="default: 1 2 3 4")
    parser.add_argument("--limit", type=float, default=840, metavar="SECONDS", help="for this call; what does not fit is skipped and says so")
    parser.add_argument("--again", action="store_true", help="measure rows that are there already")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--precision", default="bf16", help="of item 4's GPU side and of resume")
    parser.add_argument("--sizes", nargs="+", choices=list(trainer_process.SIZES), help="of items 1 and 2")
    parser.add_argument("--architectures", nargs="+", choices=trainer_process.ARCHITECTURES, help="of items 2, 4 and cpu-curves")
    parser.add_argument("--batch", type=int, help=f"of items 1 and 2; default {speed.BATCH}")
    parser.add_argument("--input-length", type=int, help=f"of items 1 and 2; default {speed.LENGTH}")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each side in item 1")
    parser.add_argument("--threads", type=int, help="of cpu-curves")
    parser.add_argument("--kernels", help="liballometry-kernels.so; default: beside the trainer")
    parser.add_argument("--kernel-headers", default=str(kernel_module.HEADERS))
    parser.add_argument("--memory-cells", help="what memory_cells.py wrote")
    parser.add_argument("--cpu-curves", help="default: cpu_curves.json beside this program")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, to prove the program")
    parser.add_argument("-o", "--output")
    options = parser.parse_args(arguments)
    if STUDY in options.only:
        parser.error("item 5 is the study, which is not this program's: bench/gpu/run.sh --study SLOTS, or bench/gpu/study.py")
    options.data, options.curves_data = options.data or options.curves_data, options.curves_data or options.data
    if options.rehearse:
        options = rehearsed(options)
    if not options.output and options.only != ["cpu-curves"]:
        parser.error("-o is needed")
    with trainer_process.work_folder() as work:
        return measure(Context(options, work), options.only, options.limit)


if __name__ == "__main__":
    sys.exit(main())
