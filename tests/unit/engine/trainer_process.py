"""Helpers for tests that run allo-trainer as its worker would: run.json in, events and an exit code out."""
import json
import os
import pathlib
import signal
import subprocess
import time

TRAINER = os.environ["ALLO_TRAINER"]
WAIT_SECONDS = 600  # a hang, not a measure of speed


class Attempt:
    """A started trainer process in its run directory."""

    def __init__(self, directory, run, execution=None, trainer=TRAINER, **popen):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        execution = {"run_id": "test", "attempt": 1, "device": "cpu", "threads": 1, **(execution or {})}
        (self.directory / "run.json").write_text(json.dumps({"contract_version": 1, "run": run, "execution": execution}))
        environment = {**os.environ, "ALLOMETRY_EVENTS": str(self.directory / "events"),
                       "ALLOMETRY_RUN_DIR": str(self.directory), "ALLOMETRY_CONTRACT": "1"}
        self.seen = len(self.events())
        self.process = subprocess.Popen([trainer, "--config", "run.json"], cwd=self.directory, env=environment,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen)

    def events(self):
        """All whole lines of the events file, of every attempt."""
        path = self.directory / "events"
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines if line.endswith("}") and line.startswith("{")]

    def wait_for(self, event, count=1, condition=lambda e: True):
        """Blocks until this attempt has sent so many of these events; False if it ends before."""
        while True:
            running = self.process.poll() is None
            if sum(e["event"] == event and condition(e) for e in self.events()[self.seen:]) >= count:
                return True
            if not running:
                return False
            time.sleep(0.002)

    def wait_until_it_can_be_stopped(self):
        """Until it catches SIGTERM, which before that ends a process without further ado."""
        while self.process.poll() is None:
            status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
            caught = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt:"))
            if caught >> (signal.SIGTERM - 1) & 1:
                return
            time.sleep(0.002)

    def finish(self):
        """Exit code (negative: signal), standard error."""
        _, self.errors = self.process.communicate(timeout=WAIT_SECONDS)
        return self.process.returncode

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        return self.finish()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.finish()


def result(attempt):
    events = attempt.events()
    return events[-1] if events and events[-1]["event"] == "result" else None


def series(events, name):
    """step -> value of a metric series; a later attempt's point replaces an earlier one's."""
    return {e["step"]: e["values"][name] for e in events if e["event"] == "metric" and name in e["values"]}
