"""Every process as a user of its own, with folders that no other may enter: what one has to know of another goes by the wire."""
import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

from cluster import HANGS_S, Cluster, assert_one_attempt_accepted_each, build_dir, corpus, module, wait_until

# They need no entry in /etc/passwd.
SUBMITTER, COORDINATOR, FIRST, SECOND = range(61000, 61004)
WORDNET = pathlib.Path(os.environ.get("ALLOMETRY_WORDNET_DIR", "/usr/share/wordnet"))

SWEEP = """
name: users
data: {text: [corpus.txt]}
tokenizer: {vocabulary: 400}
architectures: [transformer]
sizes: [{name: a, d_model: 16, layers: 1, d_ff: 32, heads: 2, d_kv: 8}]
seeds: [0]
pretraining: {steps: 5, input_length: 32, batch_sequences: 4, evaluation_examples: 8}
finetuning:
  tasks: [{name: wordnet_pos, max_train: 200, max_valid: 20}]
  steps: 5
  batch_sequences: 4
  input_length: 32
"""

# Trains, but for fine-tuning, which it starts and never ends.
STUCK_TRAINER = """#!/bin/sh
grep -q '"kind":"finetune"' run.json && exec sleep 1000
exec {trainer} "$@"
"""


def as_user(uid, home):
    return {"user": uid, "group": uid, "extra_groups": [], "cwd": home,
            "env": {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}}


def can(uid, *command):
    return subprocess.run([str(word) for word in command], capture_output=True, timeout=HANGS_S,
                          **as_user(uid, "/")).returncode == 0


@pytest.fixture
def homes():
    """A private folder for each user, in one that all may pass (pytest's own may be entered by one user only)."""
    if os.geteuid() != 0:
        pytest.skip("only root can start processes as other users")
    if not (build_dir() / "allo-trainer").exists():
        pytest.skip("allo-trainer is not built here")
    if not (WORDNET / "data.noun").exists():
        pytest.skip(f"{WORDNET} is not here (Debian's wordnet-base)")
    if not can(FIRST, build_dir() / "allo-trainer", "--version"):
        pytest.skip(f"other users cannot execute what is in {build_dir()}")
    top = pathlib.Path(tempfile.mkdtemp(prefix="allometry-users-"))
    top.chmod(0o755)
    made = {}
    for uid, name in ((SUBMITTER, "submitter"), (COORDINATOR, "data"), (FIRST, "first"), (SECOND, "second")):
        made[uid] = top / name
        made[uid].mkdir(mode=0o700)
        os.chown(made[uid], uid, uid)
    yield made
    shutil.rmtree(top)


@pytest.fixture
def users_cluster(homes):
    cluster = Cluster(homes[COORDINATOR].parent, lease_s=6, renew_s=1)
    assert cluster.data == homes[COORDINATOR]
    yield cluster.start_coordinator(**as_user(COORDINATOR, homes[COORDINATOR]))
    cluster.close()


def write_as(uid, path, text, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    os.chown(path, uid, uid)


def prepare_submitter(home):
    labels = "".join(f"The verb, the noun, the adjective and the adverb {i} can be spelled.\n\n" for i in range(100))
    write_as(SUBMITTER, home / "corpus.txt", corpus(home).read_text() + labels)
    write_as(SUBMITTER, home / "sweep.yaml", SWEEP)


def cell_of(cluster, kind):
    return next(cell for cell in cluster.cells("users") if cell.kind == getattr(module("sweep_pb2"), f"RUN_KIND_{kind}"))


def is_running(cluster, kind):
    assert not any(cell.error for cell in cluster.cells("users")), [cell.error for cell in cluster.cells("users")]
    return cell_of(cluster, kind).state == module("sweep_pb2").RUN_STATE_RUNNING


def worker_outcomes(cluster, kind):
    attempts = cluster.explain(cell_of(cluster, kind).cell).attempts
    return [(a.worker, a.outcome) for a in sorted(attempts, key=lambda a: a.attempt_id)]


def destroy_worker(cluster, name, home):
    cluster.kill_worker(name)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(home)
    assert not home.exists()


def test_a_model_outlives_the_worker_that_pretrained_it(users_cluster, homes):
    cluster = users_cluster
    prepare_submitter(homes[SUBMITTER])
    text, database = homes[SUBMITTER] / "corpus.txt", homes[COORDINATOR] / "allometry.db"
    assert can(SUBMITTER, "cat", text) and can(COORDINATOR, "cat", database)
    assert not any(can(uid, "cat", text) for uid in (COORDINATOR, FIRST, SECOND))
    assert not any(can(uid, "cat", database) for uid in (SUBMITTER, FIRST, SECOND))

    submitted = subprocess.run([build_dir() / "allo", "submit", "sweep.yaml", "--coordinator", cluster.address],
                               capture_output=True, text=True, timeout=HANGS_S, **as_user(SUBMITTER, homes[SUBMITTER]))
    assert submitted.returncode == 0, submitted.stderr

    trainer = homes[FIRST] / "trainer.sh"
    write_as(FIRST, trainer, STUCK_TRAINER.format(trainer=build_dir() / "allo-trainer"), mode=0o700)
    cluster.start_worker("first", trainers=[f"builtin={trainer}"], **as_user(FIRST, homes[FIRST]))
    wait_until(lambda: is_running(cluster, "FINETUNE"), "fine-tuning to start")
    assert worker_outcomes(cluster, "PREPARE") == worker_outcomes(cluster, "PRETRAIN") == [("first", "done")]

    destroy_worker(cluster, "first", homes[FIRST])
    cluster.start_worker("second", trainers=(), **as_user(SECOND, homes[SECOND]))
    assert cluster.finished("users").done == 4
    assert worker_outcomes(cluster, "FINETUNE") == [("first", "lost"), ("second", "done")]
    assert worker_outcomes(cluster, "PRETRAIN") == [("first", "done")], "what is fine-tuned is the first worker's model"
    assert_one_attempt_accepted_each(cluster, cluster.cells("users"))
    assert oct(homes[SECOND].stat().st_mode & 0o777) == oct(0o700)
