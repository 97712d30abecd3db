"""kill -9 of each role: no acknowledged result is lost, none is accepted twice, and the sweep ends.

ALLOMETRY_KILLS sets how many random moments per role are tried (seeded; 3 by default).
"""
import os
import pathlib
import random
import signal
import time

import pytest

from cluster import assert_every_result_accepted_once, corpus, fake_spec, module, submit, wait_until

MOMENTS = range(int(os.environ.get("ALLOMETRY_KILLS", "3")))


def journal_lines(path, what):
    return [line.split() for line in path.read_text().splitlines() if line.startswith(what)] if path.exists() else []


def alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def trainer_pids(journal):
    return [int(words[3]) for words in journal_lines(journal, "start")]


@pytest.mark.parametrize("seed", MOMENTS)
def test_coordinator(cluster, tmp_path, seed):
    moment = random.Random(seed).uniform(0, 2.0)
    journal = tmp_path / "journal"
    submit(cluster, fake_spec("s", orders=3, seeds=4, steps=30, step_ms=10, journal=str(journal)), corpus(tmp_path))
    cluster.start_worker("worker")
    time.sleep(moment)
    before = {cell.cell for cell in cluster.cells("s") if cell.state == module("sweep_pb2").RUN_STATE_DONE}
    cluster.kill_coordinator()
    cluster.start_coordinator()
    after = {cell.cell for cell in cluster.cells("s") if cell.state == module("sweep_pb2").RUN_STATE_DONE}
    assert before <= after, "what was told as done stays done"
    assert cluster.finished("s").done == 12
    assert_every_result_accepted_once(cluster, "s")
    assert len(journal_lines(journal, "done")) == 12, "trainers live through the coordinator's death: nothing ran twice"


@pytest.mark.parametrize("seed", MOMENTS)
def test_worker(cluster, tmp_path, seed):
    moment = random.Random(1000 + seed).uniform(0, 2.0)
    journal = tmp_path / "journal"
    submit(cluster, fake_spec("s", orders=3, seeds=4, steps=30, step_ms=10, journal=str(journal)), corpus(tmp_path))
    cluster.start_worker("worker")
    time.sleep(moment)
    cluster.kill_worker("worker")
    wait_until(lambda: not any(alive(pid) for pid in trainer_pids(journal)), "the trainers to die with their worker")
    cluster.start_worker("worker")
    assert cluster.finished("s").done == 12
    assert_every_result_accepted_once(cluster, "s")


def test_a_lost_worker_is_replaced_by_another(make_cluster, tmp_path):
    cluster = make_cluster(lease_s=6, renew_s=1)
    submit(cluster, fake_spec("s", orders=2, seeds=1, steps=100, step_ms=20), corpus(tmp_path))
    cluster.start_worker("first")
    wait_until(lambda: any(cell.step > 0 for cell in cluster.cells("s")), "progress")
    cluster.kill_worker("first")
    cluster.start_worker("second")
    assert cluster.finished("s").done == 2
    assert_every_result_accepted_once(cluster, "s")
    outcomes = [a.outcome for cell in cluster.cells("s") for a in cluster.explain(cell.cell).attempts]
    assert "lost" in outcomes


def test_trainer(cluster, tmp_path):
    journal = tmp_path / "journal"
    marker = tmp_path / "died"
    submit(cluster, fake_spec("s", orders=1, seeds=1, steps=60, journal=str(journal), die_once=str(marker)), corpus(tmp_path))
    cluster.start_worker("worker")
    assert cluster.finished("s").done == 1
    assert marker.exists()
    assert_every_result_accepted_once(cluster, "s")
    attempts = sorted(cluster.explain("s/fake-n1-s0").attempts, key=lambda a: a.attempt_id)
    assert [a.outcome for a in attempts] == ["crash", "done"]
    assert attempts[0].signal == signal.SIGKILL
    starts = journal_lines(journal, "start")
    assert [int(words[4]) for words in starts] == [0, 30], "it goes on from the last checkpoint"


@pytest.mark.parametrize("seed", MOMENTS)
def test_trainer_at_a_random_moment(cluster, tmp_path, seed):
    chance = random.Random(2000 + seed)
    journal = tmp_path / "journal"
    submit(cluster, fake_spec("s", orders=2, seeds=2, steps=30, step_ms=20, journal=str(journal)), corpus(tmp_path))
    cluster.start_worker("worker")
    wait_until(lambda: trainer_pids(journal), "a start")
    time.sleep(chance.uniform(0, 1.2))
    running = [pid for pid in trainer_pids(journal) if alive(pid)]
    if running:
        os.kill(chance.choice(running), signal.SIGKILL)
    assert cluster.finished("s").done == 4
    assert_every_result_accepted_once(cluster, "s")
    for what, order, run_seed, _, step in journal_lines(journal, "start"):
        assert int(step) % 10 == 0, "every start is a checkpoint's, or the first"
    assert len(journal_lines(journal, "start")) <= 4 + len(running[:1]), "only the one that was killed starts again"


def test_everything_at_once(cluster, tmp_path):
    submit(cluster, fake_spec("s", orders=2, seeds=3, steps=40, step_ms=10), corpus(tmp_path))
    cluster.start_worker("worker")
    wait_until(lambda: cluster.get("s").running or cluster.get("s").done, "a start")
    cluster.kill_coordinator()
    cluster.kill_worker("worker")
    cluster.start_coordinator()
    cluster.start_worker("worker")
    assert cluster.finished("s").done == 6
    assert_every_result_accepted_once(cluster, "s")
