#!/usr/bin/env python3
"""allo-trainer on one GPU: every architecture against the CPU on equal weights and data, resuming, and tokens a second.

    python bench/gpu/trainer_gpu.py --trainer build/trainer/allo-trainer --data PREPARED -o bench/results/trainer_gpu.json

PREPARED is the output folder of a `prepare` run (vocabulary 2,048). Needs nothing but the program and a GPU; writes the JSON
after each row, so that a run that is cut off keeps what it has.
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

NANO = dict(encoder_layers=4, decoder_layers=4, d_model=64, d_ff=256, heads=4, d_kv=16, vocabulary=2048)
SPEED = {"tiny": dict(encoder_layers=4, decoder_layers=4, d_model=256, d_ff=1024, heads=4, d_kv=64, vocabulary=32128),
         "base": dict(encoder_layers=12, decoder_layers=12, d_model=768, d_ff=3072, heads=12, d_kv=64, vocabulary=32128)}
HANGS_S = 300


class Bench:
    def __init__(self, trainer, data, work):
        self.trainer, self.data, self.work = str(pathlib.Path(trainer).resolve()), str(pathlib.Path(data).resolve()), work

    def start(self, name, architecture, shape, device, precision="fp32", steps=20, batch=16, length=128, log_every=1, options=None, **execution):
        folder = self.work / name
        folder.mkdir(parents=True, exist_ok=True)
        run = {"kind": "pretrain", "trainer": "builtin", "data": "d" * 64, "seed": 0,
               "model": {"architecture": architecture, "options": options or {}, "shape": shape},
               "objective": {"name": "span_corruption", "input_length": length},
               "optimizer": {"name": "adafactor", "learning_rate": 0.02, "schedule": "inverse_sqrt", "warmup_steps": 128},
               "batch_sequences": batch, "steps": steps, "evaluation": {"examples": 32}}
        execution = {"run_id": "bench", "attempt": 1, "device": device, "threads": os.cpu_count(), "precision": precision,
                     "inputs": {"data": self.data}, "log_every": log_every, **execution}
        (folder / "run.json").write_text(json.dumps({"contract_version": 1, "run": run, "execution": execution}))
        environment = {**os.environ, "ALLOMETRY_EVENTS": str(folder / "events"), "ALLOMETRY_RUN_DIR": str(folder)}
        return folder, subprocess.Popen([self.trainer, "--config", "run.json"], cwd=folder, env=environment,
                                        stderr=subprocess.PIPE, text=True)

    def finish(self, folder, process):
        errors = process.communicate(timeout=HANGS_S)[1]
        events = [json.loads(line) for line in (folder / "events").read_text().splitlines()]
        losses = {e["step"]: e["values"]["train/loss"] for e in events
                  if e["event"] == "metric" and "train/loss" in e["values"]}
        results = [e["metrics"] for e in events if e["event"] == "result"]
        starts = [e["resumed_step"] for e in events if e["event"] == "start"]
        if process.returncode not in (0, 40):
            raise SystemExit(f"{folder.name}: exit code {process.returncode}: {errors[-400:]}")
        return {"code": process.returncode, "losses": losses, "metrics": results[-1] if results else {}, "starts": starts}

    def run(self, *arguments, **keywords):
        return self.finish(*self.start(*arguments, **keywords))


def gap(first, second):
    steps = sorted(set(first["losses"]) & set(second["losses"]))
    return {which: abs(first["losses"][step] - second["losses"][step])
            for which, step in (("first", steps[0]), ("last", steps[-1]))}


def compare(bench, architecture, device):
    cpu = bench.run(architecture + "-cpu", architecture, NANO, "cpu")
    gpu = bench.run(architecture + "-gpu", architecture, NANO, device)
    bf16 = bench.run(architecture + "-bf16", architecture, NANO, device, "bf16")
    return {"architecture": architecture, "fp32_gap": gap(cpu, gpu), "bf16_gap": gap(cpu, bf16),
            "validation_gap": abs(gpu["metrics"]["validation_loss"] - cpu["metrics"]["validation_loss"]),
            "gpu_tokens_per_s": gpu["metrics"]["tokens_per_second"], "peak_memory": gpu["metrics"]["peak_memory_bytes"]}


def resume(bench, device):
    keywords = dict(steps=300, log_every=50)
    folder, process = bench.start("stopped", "transformer", NANO, device, checkpoint_interval_s=0, **keywords)
    while process.poll() is None and (not (folder / "events").exists() or
                                      (folder / "events").read_text().count('"checkpoint"') < 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    stopped = bench.finish(folder, process)
    resumed = bench.run("stopped", "transformer", NANO, device, **keywords)
    straight = bench.run("straight", "transformer", NANO, device, **keywords)
    return {"stopped": stopped["code"], "resumed": resumed["code"], "resumed_step": resumed["starts"][-1],
            "gap": gap(resumed, straight), "validation": [r["metrics"]["validation_loss"] for r in (resumed, straight)]}


def speed(bench, size, precision, device):
    base = size == "base"
    metrics = bench.run(f"speed-{size}-{precision}", "transformer", SPEED[size], device, precision, steps=12 if base else 30,
                        batch=128, length=512, micro_batch=32 if base else 128, log_every=10)["metrics"]
    return {"size": size, "precision": precision, "tokens_per_s": metrics["tokens_per_second"],
            "peak_memory": metrics["peak_memory_bytes"], "device_seconds": metrics["device_seconds"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("-o", "--output", required=True)
    options = parser.parse_args()
    probe = json.loads(subprocess.run([options.trainer, "--probe"], capture_output=True, text=True, check=True).stdout)
    device = [d["name"] for d in probe["devices"] if d["device"] == options.device]
    if not device:
        raise SystemExit(f"there is no {options.device} here; allo-trainer --probe shows {[d['device'] for d in probe['devices']]}")
    work = pathlib.Path(tempfile.mkdtemp(prefix="trainer_gpu_"))
    bench = Bench(options.trainer, options.data, work)
    version = subprocess.run([options.trainer, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    report = {"bench": "trainer_gpu", "version": version, "device": device[0], "date": time.strftime("%Y-%m-%d"), "rows": [],
              "speed_input_length_512_batch_128": []}

    def save():
        pathlib.Path(options.output).write_text(json.dumps(report, indent=1) + "\n")

    try:
        for architecture in probe["architectures"]:
            report["rows"].append(compare(bench, architecture, options.device))
            save()
        report["resume"] = resume(bench, options.device)
        for size in SPEED:
            for precision in ("bf16", "fp32"):
                report["speed_input_length_512_batch_128"].append(speed(bench, size, precision, options.device))
                save()
        save()
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
