#!/usr/bin/env python3
"""A trainer by the contract that does what its run object says, for the worker's tests."""
import json
import os
import signal
import sys
import time

config = json.load(open(sys.argv[sys.argv.index("--config") + 1]))
run, execution = config["run"], config["execution"]
events = open(os.environ["ALLOMETRY_EVENTS"], "a")


def emit(**event):
    events.write(json.dumps(event) + "\n")
    events.flush()


def checkpoint(step):
    folder = f"checkpoints/step-{step}"
    os.makedirs(folder, exist_ok=True)
    with open(folder + "/state", "w") as file:
        file.write(f"state of step {step}")
    emit(event="checkpoint", step=step, path=folder)


def meet():
    """Rank 0 tells where it is, the others wait until they hear it."""
    if execution["rank"] == 0:
        emit(event="rendezvous", value=run.get("rendezvous", "here"))
        return
    while not os.path.exists(execution["rendezvous"]):
        time.sleep(0.01)
    print("met", open(execution["rendezvous"]).read(), flush=True)


def resumed_step():
    if "resume" not in execution:
        return 0
    return int(open(execution["resume"] + "/state").read().split()[-1])


first = resumed_step()
stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
emit(event="start", device=execution["device"], precision="fp32", resumed_step=first, provenance={"trainer": "fake"})
print("hello from", os.getpid(), flush=True)
print("a warning", file=sys.stderr, flush=True)
if "ranks" in execution:
    meet()
if "say" in run:
    sys.stdout.write(run["say"] * run["times"])
    sys.stdout.flush()

steps = run.get("steps", 10)
step = first
while step < steps or run.get("forever"):
    step += 1
    emit(event="progress", step=step, steps=steps, loss=1.0 / step, tokens_per_second=100)
    emit(event="metric", step=step, values={"loss": 1.0 / step, "norm": "nan" if step == 1 else step})
    if run.get("checkpoint_every") and step % run["checkpoint_every"] == 0:
        checkpoint(step)
    if stopping and not run.get("stubborn"):
        checkpoint(step)
        sys.exit(40)
    if run.get("pause_s"):
        time.sleep(run["pause_s"])

if "does_not_fit" in run:
    emit(event="out_of_memory", micro_batch=run["does_not_fit"])
if execution.get("rank", 0) > 0:
    sys.exit(run.get("exit_of_others", 0))
if run.get("exit"):
    print(run.get("reason", "the reason why"), file=sys.stderr)
    sys.exit(run["exit"])
os.makedirs("out/model", exist_ok=True)
with open("out/model/weights", "w") as file:
    file.write("w" * run.get("weight_bytes", 100))
with open("out/model/about.json", "w") as file:
    json.dump({"inputs": {name: sorted(os.listdir(path)) for name, path in execution["inputs"].items()},
               "files": {sha: open(path).read() for sha, path in execution["files"].items()},
               "threads": execution["threads"],
               "activation_checkpointing": execution.get("activation_checkpointing")}, file, sort_keys=True)
emit(event="result", metrics={"validation_loss": 1.5, "steps": steps}, scores=[], outputs={"model": "out/model"}, report={})
