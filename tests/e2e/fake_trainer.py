#!/usr/bin/env python3
"""A trainer that trains nothing, by the trainer contract: for tests of the processes around it.

What it "learns" is a known line: validation loss = 6 + above - slope log10(FLOPs) ± 0.01 by seed, FLOPs = 10^(3 + order).
Its `model.options`: order (the size), slope (0.5), above (0), step_ms (how long a step takes), journal (a file to which every start and end is
appended, so that a test knows what was executed), exit_code (end with it at once), die_once (a file: kill itself half way unless the
file exists), fail_rank (of a gang: this rank ends half way with exit code 43), log_bytes (written to stdout), checkpoint_bytes (put beside the state, for uploads of several parts), scores (1: leave a
model, and as fine-tuning of it score each of its tasks: all metrics are 0.1 order + 0.01 seed + 0.001 the task's place).

On several devices the ranks go from step to step together: rank 0 listens and tells where, and a step begins when all have asked for it.
"""
import argparse
import contextlib
import json
import math
import os
import pathlib
import signal
import socket
import sys
import time

DONE, STOPPED, DATA_ERROR, PEER_LOST = 0, 40, 43, 46
CHECKPOINT_EVERY_STEPS = 10
# Of tasks that are judged by something else than their accuracy alone.
METRICS = {"glue_cola": ["matthews"], "glue_mrpc": ["f1", "accuracy"], "glue_qqp": ["f1", "accuracy"],
           "glue_stsb": ["pearson", "spearman"], "glue_mnli": ["matched_accuracy", "mismatched_accuracy"],
           "superglue_cb": ["f1_macro", "accuracy"], "superglue_multirc": ["f1a", "exact_match"],
           "superglue_record": ["f1", "exact_match"], "squad": ["f1", "exact_match"]}


class PeerLost(Exception):
    pass


def tell(peer, word):
    try:
        peer.sendall(word.encode() + b"\n")
    except OSError as error:
        raise PeerLost(str(error)) from error


def hear(lines):
    try:
        word = lines.readline().decode().strip()
    except OSError as error:
        raise PeerLost(str(error)) from error
    if not word:
        raise PeerLost("a rank is gone")
    return word


class RankZero:
    """Holds the others by a connection each."""

    def __init__(self, execution, emit):
        listener = socket.create_server((execution["listen"], 0))
        value = f"127.0.0.1:{listener.getsockname()[1]}"
        place = pathlib.Path(execution["rendezvous"])
        temporary = place.with_suffix(".tmp")
        temporary.write_text(value)
        temporary.rename(place)  # whoever sees it reads all of it
        emit(event="rendezvous", value=value)
        self.peers = [listener.accept()[0] for _ in range(1, execution["ranks"])]
        self.lines = [peer.makefile("rb") for peer in self.peers]

    def gather(self):
        """What each of the others says: go on, or stop."""
        return [hear(lines) for lines in self.lines]

    def tell_all(self, word):
        for peer in self.peers:
            tell(peer, word)


class OtherRank:
    def __init__(self, execution):
        place = pathlib.Path(execution["rendezvous"])
        while not place.exists():
            time.sleep(0.01)
        host, port = place.read_text().split(":")
        self.peer = socket.create_connection((host, int(port)))
        self.lines = self.peer.makefile("rb")

    def ask(self, word):
        tell(self.peer, word)
        return hear(self.lines)


class Trainer:
    def __init__(self, config):
        self.run, self.execution = config["run"], config["execution"]
        self.options = self.run["model"]["options"]
        self.steps = self.run["steps"]
        self.rank, self.ranks = self.execution.get("rank", 0), self.execution.get("ranks", 1)
        self.stop = False
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stop", True))
        self.events = open(os.environ["ALLOMETRY_EVENTS"], "a")

    def emit(self, **event):
        self.events.write(json.dumps(event) + "\n")
        self.events.flush()

    def fail_if_told(self, step):
        if self.options.get("fail_rank") == self.rank and step >= self.steps // 2:
            print("a torn file", file=sys.stderr)
            sys.exit(DATA_ERROR)

    def follow(self):
        """A rank after 0: does the steps that rank 0 gives out."""
        self.journal(f"rank{self.rank}", 0)
        print(f"I am rank {self.rank}", flush=True)
        zero = OtherRank(self.execution)
        for step in range(self.steps + 1):
            answer = zero.ask("stop" if self.stop else "go")
            if answer != "go":
                return STOPPED if answer == "stop" else DONE
            self.fail_if_told(step)
            time.sleep(self.options.get("step_ms", 1) / 1000)
        return DONE

    def journal(self, what, step):
        if "journal" not in self.options:
            return
        line = f"{what} {self.options['order']} {self.run['seed']} {os.getpid()} {step}\n"
        with open(self.options["journal"], "a") as file:
            file.write(line)

    def checkpoint(self, step):
        folder = pathlib.Path("checkpoint")
        folder.mkdir(exist_ok=True)
        if "checkpoint_bytes" in self.options:
            (folder / "weights").write_bytes(bytes(int(self.options["checkpoint_bytes"])))
        temporary = folder / "state.tmp"
        temporary.write_text(str(step))
        temporary.rename(folder / "state")
        self.emit(event="checkpoint", step=step, path="checkpoint")

    def resumed_step(self):
        steps = [0]
        for folder in (pathlib.Path("checkpoint"), pathlib.Path(self.execution.get("resume", "none"))):
            if (folder / "state").exists():
                steps.append(int((folder / "state").read_text()))
        return max(steps)

    def loss(self, step):
        flops = 10 ** (3 + self.options["order"])
        line = 6 + self.options.get("above", 0) - self.options.get("slope", 0.5) * math.log10(flops)
        final = line + (0.01 if self.run["seed"] == 0 else -0.01)
        return final + (self.steps - step) / self.steps

    def score(self, place, task):
        value = 0.1 * self.options["order"] + 0.01 * self.run["seed"] + 0.001 * place
        names = METRICS.get(task, ["accuracy"])
        return {"task": task, "benchmark": task.split("_")[0], "in_average": task != "glue_wnli", "metric": names[0],
                "value": value, "standard_error": 0.02, "metrics": dict.fromkeys(names, value),
                "standard_errors": dict.fromkeys(names, 0.02), "examples": 100, "majority": None if task == "squad" else 0.2,
                "at_chance": value <= 0.24, "unparsed": 7 if task == "superglue_copa" else 0, "decoding": "greedy",
                "split": "valid", "selected_on_test": task == "superglue_wsc"}

    def scores(self):
        if not self.options.get("scores") or self.run["kind"] != "finetune":
            return []
        return [self.score(place, task["name"]) for place, task in enumerate(self.run["tasks"])]

    def outputs(self):
        return {"model": "checkpoint"} if self.options.get("scores") and self.run["kind"] == "pretrain" else {}

    def die_if_told(self, step):
        marker = self.options.get("die_once")
        if marker and step >= self.steps // 2:
            with contextlib.suppress(FileExistsError):  # made by one alone, though two get here at once
                pathlib.Path(marker).touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)

    def train(self):
        start = self.resumed_step()
        self.journal("start", start)
        self.emit(event="start", device="cpu", precision="fp32", resumed_step=start, provenance={"fake": True})
        print("x" * self.options.get("log_bytes", 10), flush=True)
        gang = RankZero(self.execution, self.emit) if self.ranks > 1 else None
        for step in range(start, self.steps):
            if gang and "stop" in gang.gather():
                self.stop = True
            if gang:
                gang.tell_all("stop" if self.stop else "go")
            if self.stop:
                self.checkpoint(step)
                self.journal("stop", step)
                return STOPPED
            time.sleep(self.options.get("step_ms", 1) / 1000)
            self.die_if_told(step)
            self.fail_if_told(step)
            if (step + 1) % CHECKPOINT_EVERY_STEPS == 0:
                self.checkpoint(step + 1)
                self.emit(event="progress", step=step + 1, steps=self.steps, loss=self.loss(step + 1), tokens_per_second=1000)
                self.emit(event="metric", step=step + 1, values={"loss": self.loss(step + 1)})
        if gang:
            gang.gather()
            gang.tell_all("done")
        self.journal("done", self.steps)
        flops = 10 ** (3 + self.options["order"])
        self.emit(event="result", scores=self.scores(), outputs=self.outputs(), report={},
                  metrics={"validation_loss": self.loss(self.steps), "forward_flops": flops, "training_flops": 3 * flops,
                           "parameters": flops, "non_embedding_parameters": flops, "device_seconds": 1.0, "steps": self.steps})
        return DONE


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    trainer = Trainer(json.loads(pathlib.Path(parser.parse_args().config).read_text()))
    if "exit_code" in trainer.options:
        print("told to fail", file=sys.stderr)
        return trainer.options["exit_code"]
    try:
        return trainer.train() if trainer.rank == 0 else trainer.follow()
    except PeerLost as lost:
        print(lost, file=sys.stderr)
        return PEER_LOST


if __name__ == "__main__":
    sys.exit(main())
