"""allo-trainer as a process: a run's file in, events out, each with the time at which it came."""
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import time

SIZES = {"nano": dict(encoder_layers=4, decoder_layers=4, d_model=64, d_ff=256, heads=4, d_kv=16, vocabulary=2048),
         "tiny": dict(encoder_layers=4, decoder_layers=4, d_model=256, d_ff=1024, heads=4, d_kv=64, vocabulary=32128),
         "small": dict(encoder_layers=6, decoder_layers=6, d_model=512, d_ff=2048, heads=8, d_kv=64, vocabulary=32128),
         "base": dict(encoder_layers=12, decoder_layers=12, d_model=768, d_ff=3072, heads=12, d_kv=64, vocabulary=32128),
         "large": dict(encoder_layers=24, decoder_layers=24, d_model=1024, d_ff=4096, heads=16, d_kv=64, vocabulary=32128)}
ARCHITECTURES = ("transformer", "albert", "dconv", "evolved", "funnel", "glu", "lconv", "mixer", "mos", "performer", "switch",
                 "universal")
ADAMW = {"name": "adamw", "learning_rate": 1e-4, "schedule": "constant", "warmup_steps": 0}
ADAFACTOR = {"name": "adafactor", "learning_rate": 0.02, "schedule": "inverse_sqrt", "warmup_steps": 128}
DONE, STOPPED, OUT_OF_MEMORY = 0, 40, 45
POLL_S = 0.0005


class Failed(Exception):
    """A run that gave no figure; says why."""

    def __init__(self, message, code=None):
        super().__init__(message)
        self.code = code


def text_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def options_of(architecture, size):
    """Depths below four have no layer for Switch's experts."""
    shape = SIZES[size]
    few = min(shape["encoder_layers"], shape["decoder_layers"]) < 4
    return {"placement": "huggingface"} if architecture == "switch" and few else {}


@dataclasses.dataclass
class Outcome:
    code: int
    arrivals: list   # (seconds by time.time, event)
    errors: str

    def losses(self):
        return {e["step"]: e["values"]["train/loss"] for _, e in self.arrivals if e["event"] == "metric" and "train/loss" in e["values"]}

    def metrics(self):
        results = [e["metrics"] for _, e in self.arrivals if e["event"] == "result"]
        return results[-1] if results else {}

    def report(self):
        results = [e["report"] for _, e in self.arrivals if e["event"] == "result"]
        return results[-1] if results else {}

    def starts(self):
        return [e["resumed_step"] for _, e in self.arrivals if e["event"] == "start"]

    def step_times(self):
        """(seconds by time.time, step) of each metric point of the training: the device had finished that step."""
        return [(at, e["step"]) for at, e in self.arrivals if e["event"] == "metric" and "train/loss" in e["values"]]

    def seconds_per_step(self, skip=1):
        """Of the metric points behind the first `skip`, in which memory was allocated and graphs were captured."""
        points = self.step_times()[skip - 1:]
        if len(points) < 2:
            raise Failed("too few metric points to time a step")
        return [(later - at) / (there - here) for (at, here), (later, there) in zip(points, points[1:])]


class Follower(threading.Thread):
    """Reads a file of events while it grows."""

    def __init__(self, path, process, already):
        super().__init__(daemon=True)
        self.path, self.process, self.position, self.arrivals, self.rest = path, process, already, [], b""

    def take(self):
        if not self.path.exists():
            return False
        with open(self.path, "rb") as file:
            file.seek(self.position)
            fresh = file.read()
        now = time.time()
        self.position += len(fresh)
        *lines, self.rest = (self.rest + fresh).split(b"\n")
        self.arrivals += [(now, json.loads(line)) for line in lines]
        return bool(fresh)

    def run(self):
        while self.process.poll() is None:
            if not self.take():
                time.sleep(POLL_S)
        while self.take():
            pass


class Running:
    def __init__(self, command, folder, environment):
        self.folder = folder
        events = folder / "events"
        already = events.stat().st_size if events.exists() else 0
        self.errors = open(folder / "stderr", "w")
        self.process = subprocess.Popen(command, cwd=folder, stderr=self.errors, stdout=subprocess.DEVNULL,
                                        env={**os.environ, "ALLOMETRY_EVENTS": str(events), "ALLOMETRY_RUN_DIR": str(folder),
                                             "ALLOMETRY_CONTRACT": "1", **environment})
        self.follower = Follower(events, self.process, already)
        self.follower.start()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def finish(self, seconds=None):
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failed(f"ran longer than {seconds:.0f} s") from None
        finally:
            self.follower.join()
            self.errors.close()
        errors = (self.folder / "stderr").read_text(errors="replace")
        code = self.process.returncode
        if code not in (DONE, STOPPED):
            raise Failed(f"exit code {code}: {errors.strip()[-300:]}", code)
        return Outcome(code, self.follower.arrivals, errors)


class Trainer:
    def __init__(self, program, data, work):
        self.program = str(pathlib.Path(program).resolve())
        self.data, self.work = str(pathlib.Path(data).resolve()), pathlib.Path(work)

    def shape(self, size):
        """With an embedding of the data's vocabulary, where that is the larger one."""
        described = json.loads((pathlib.Path(self.data) / "data.json").read_text())
        return {**SIZES[size], "vocabulary": max(SIZES[size]["vocabulary"], described["tokenizer"]["vocabulary"])}

    def version(self):
        return text_of(self.program, "--version").strip()

    def probe(self):
        return json.loads(text_of(self.program, "--probe"))

    def start(self, name, architecture, shape, device, precision, *, steps, batch, length, log_every=1, options=None, seed=0,
              optimizer=ADAMW, evaluation=1, environment=None, **execution):
        folder = self.work / name
        folder.mkdir(parents=True, exist_ok=True)
        run = {"kind": "pretrain", "trainer": "builtin", "data": "d" * 64, "seed": seed,
               "model": {"architecture": architecture, "options": options or {}, "shape": shape},
               "objective": {"name": "span_corruption", "input_length": length}, "optimizer": optimizer,
               "batch_sequences": batch, "steps": steps, "evaluation": {"examples": evaluation}}
        execution = {"run_id": "bench", "attempt": 1, "device": device, "threads": os.cpu_count(), "precision": precision,
                     "inputs": {"data": self.data}, "log_every": log_every, "keep_final": False,
                     "checkpoint_interval_s": 100000, "kernels": True, "activation_checkpointing": False, **execution}
        (folder / "run.json").write_text(json.dumps({"contract_version": 1, "run": run, "execution": execution}))
        return Running([self.program, "--config", "run.json"], folder, environment or {})

    def run(self, name, *arguments, limit=None, keep=False, **keywords):
        try:
            return self.start(name, *arguments, **keywords).finish(limit)
        finally:
            if not keep:
                shutil.rmtree(self.work / name, ignore_errors=True)

    def fitting(self, name, *arguments, batch, micro_batch=None, **keywords):
        """(outcome, micro-batch): the whole batch at once, halved as often as the memory says so."""
        micro = micro_batch or batch
        while True:
            try:
                outcome = self.run(name, *arguments, batch=batch, micro_batch=micro, **keywords)
                return outcome, outcome.report().get("micro_batch", micro)  # one process halves too
            except Failed as failed:
                if failed.code != OUT_OF_MEMORY or micro == 1:
                    raise
                micro //= 2


def work_folder():
    return tempfile.TemporaryDirectory(prefix="allometry_gpu_")


def median(values):
    return statistics.median(values)
