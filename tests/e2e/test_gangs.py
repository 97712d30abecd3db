"""Runs on several devices with real processes: on one worker and on two, and what follows when a rank, its worker or the coordinator dies."""
import json
import os
import signal
import sys

import pytest

import cluster as clusters
from cluster import (ROOT, assert_every_result_accepted_once, assert_one_attempt_accepted_each, build_dir, corpus, fake_spec,
                     module, submit, wait_until)
from test_kill import alive, journal_lines


def pids_of(journal, rank):
    return [int(words[3]) for words in journal_lines(journal, "start" if rank == 0 else f"rank{rank}")]


def progressed(cluster, step=10):
    return wait_until(lambda: any(cell.step >= step for cell in cluster.cells("s")), "progress")


def attempts(cluster):
    return sorted(cluster.explain("s/fake-n1-s0").attempts, key=lambda a: a.attempt_id)


def resumed_at(journal):
    return [int(words[4]) for words in journal_lines(journal, "start")]


def start_two_workers(cluster):
    for name in ("one", "two"):
        cluster.start_worker(name, slots=1)


def gang(tmp_path, steps=30, devices=2, step_ms=10, **options):
    return fake_spec("s", orders=1, seeds=1, steps=steps, devices=devices, step_ms=step_ms, journal=str(tmp_path / "journal"), **options)


def test_on_one_worker(cluster, tmp_path):
    submit(cluster, gang(tmp_path, devices=3), corpus(tmp_path))
    cluster.start_worker("worker", slots=3)
    assert cluster.finished("s").done == 1
    assert_every_result_accepted_once(cluster, "s")
    (attempt,) = attempts(cluster)
    assert list(attempt.rank_workers) == ["worker"] * 3
    assert cluster.allo("logs", "s/fake-n1-s0").stdout.startswith("x")
    assert cluster.allo("logs", "s/fake-n1-s0", "--rank", 2).stdout == "I am rank 2\n"
    assert "worker (3)" in cluster.allo("explain", "s/fake-n1-s0", "--format", "csv").stdout


def test_on_two_workers(cluster, tmp_path):
    submit(cluster, gang(tmp_path), corpus(tmp_path))
    cluster.start_worker("one", slots=1)
    wait_until(lambda: "at most 1 ('cpu')" in cluster.explain("s/fake-n1-s0").text, "the reason why it waits")
    cluster.start_worker("two", slots=1)
    assert cluster.finished("s").done == 1
    assert_every_result_accepted_once(cluster, "s")
    (attempt,) = attempts(cluster)
    assert sorted(attempt.rank_workers) == ["one", "two"]


def test_many_gangs_and_single_runs(cluster, tmp_path):
    spec = fake_spec("s", orders=4, seeds=3, steps=20, step_ms=5)
    for size, devices in zip(spec.sizes, ("1", "2", "3", "auto")):
        size.devices = devices
    submit(cluster, spec, corpus(tmp_path))
    cluster.start_worker("one", slots=2)
    cluster.start_worker("two", slots=1)
    assert cluster.finished("s").done == 12
    assert_every_result_accepted_once(cluster, "s")


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_ranks_trainer_is_killed(cluster, tmp_path, rank, workers):
    journal = tmp_path / "journal"
    submit(cluster, gang(tmp_path, steps=200), corpus(tmp_path))
    start_two_workers(cluster) if workers == 2 else cluster.start_worker("worker", slots=2)
    progressed(cluster)
    first = [pids_of(journal, r)[0] for r in (0, 1)]
    os.kill(first[rank], signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in first), "the other rank to end")
    assert cluster.finished("s").done == 1
    assert_every_result_accepted_once(cluster, "s")
    assert [a.outcome for a in attempts(cluster)] == ["crash", "done"], "the cause, not the loss of a peer"
    assert attempts(cluster)[0].signal == signal.SIGKILL
    assert f"rank {rank} on" in attempts(cluster)[0].message
    assert resumed_at(journal)[1] >= 10, "it goes on from a checkpoint"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_is_killed_and_another_takes_its_place(cluster, tmp_path, rank):
    journal = tmp_path / "journal"
    submit(cluster, gang(tmp_path, steps=200), corpus(tmp_path))
    start_two_workers(cluster)
    progressed(cluster)
    first = [pids_of(journal, r)[0] for r in (0, 1)]
    victim = attempts(cluster)[0].rank_workers[rank]
    cluster.kill_worker(victim)
    wait_until(lambda: not any(alive(pid) for pid in first), "all ranks to end")
    wait_until(lambda: attempts(cluster)[0].outcome != "live", "the attempt to end long before its lease does")
    cluster.start_worker("three", slots=1)
    assert cluster.finished("s").done == 1
    assert_every_result_accepted_once(cluster, "s")
    last = attempts(cluster)[-1]
    assert victim not in last.rank_workers and "three" in last.rank_workers


def test_a_run_goes_on_with_fewer_ranks(cluster, tmp_path):
    journal = tmp_path / "journal"
    path = corpus(tmp_path)
    submit(cluster, gang(tmp_path, steps=200), path)
    start_two_workers(cluster)
    progressed(cluster)
    cluster.kill_worker(attempts(cluster)[0].rank_workers[1])
    wait_until(lambda: attempts(cluster)[0].outcome != "live", "the attempt to end")
    submit(cluster, gang(tmp_path, steps=200, devices=1), path, update=True)
    assert cluster.finished("s").done == 1
    assert_every_result_accepted_once(cluster, "s")
    assert len(attempts(cluster)[-1].rank_workers) <= 1
    assert resumed_at(journal)[-1] >= 10


def test_the_coordinator_is_killed(cluster, tmp_path):
    journal = tmp_path / "journal"
    submit(cluster, gang(tmp_path, steps=200), corpus(tmp_path))
    start_two_workers(cluster)
    wait_until(lambda: pids_of(journal, 1), "rank 1 to start")
    cluster.kill_coordinator()  # perhaps before the rendezvous has been passed on
    cluster.start_coordinator()
    assert cluster.finished("s").done == 1
    assert_every_result_accepted_once(cluster, "s")
    assert len(attempts(cluster)) == 1, "the ranks live through it"


def test_pausing_stops_all_ranks_with_one_checkpoint(cluster, tmp_path):
    journal = tmp_path / "journal"
    submit(cluster, gang(tmp_path, steps=300), corpus(tmp_path))
    start_two_workers(cluster)
    progressed(cluster)
    cluster.allo("pause", "s", "--stop-running")
    wait_until(lambda: attempts(cluster)[0].outcome != "live", "the stop")
    assert attempts(cluster)[0].outcome == "stopped"
    cluster.allo("resume", "s")
    assert cluster.finished("s").done == 1
    assert_every_result_accepted_once(cluster, "s")
    stopped = [int(words[4]) for words in journal_lines(journal, "stop")]
    assert resumed_at(journal) == [0, *stopped]


def test_a_leaving_worker_takes_the_gang_along(cluster, tmp_path):
    submit(cluster, gang(tmp_path, steps=300), corpus(tmp_path))
    start_two_workers(cluster)
    progressed(cluster)
    leaver = attempts(cluster)[0].rank_workers[1]
    assert cluster.workers.pop(leaver).terminate() is not None
    wait_until(lambda: attempts(cluster)[0].outcome != "live", "the stop")
    assert attempts(cluster)[0].outcome == "stopped"
    cluster.start_worker("three", slots=1)
    assert cluster.finished("s").done == 1
    assert_every_result_accepted_once(cluster, "s")


def test_another_ranks_error_is_the_runs(cluster, tmp_path):
    submit(cluster, gang(tmp_path, fail_rank=1), corpus(tmp_path))
    start_two_workers(cluster)
    assert cluster.finished("s").failed == 1
    (attempt,) = attempts(cluster)
    assert attempt.outcome == "data_error"
    assert "rank 1 on" in attempt.message and "a torn file" in attempt.message


# ---- the built-in trainer

needs_trainer = pytest.mark.skipif(not (build_dir() / "allo-trainer").exists(), reason="allo-trainer is not built here")
TINY = ("name: tiny\ndata: {text: [corpus.txt]}\ntokenizer: {vocabulary: 400}\narchitectures: [transformer]\n"
        "sizes: [{name: a, d_model: 16, layers: 1, d_ff: 32, heads: 2, d_kv: 8, devices: DEVICES}]\nseeds: [0]\n"
        "pretraining: {steps: 20, input_length: 32, batch_sequences: 4, evaluation_examples: 8, dropout: 0.1}\n")


def train(cluster, tmp_path, devices):
    """The tiny sweep to its end; the pretraining's cell with its result."""
    corpus(tmp_path)
    (tmp_path / "sweep.yaml").write_text(TINY.replace("DEVICES", str(devices)))
    cluster.allo("submit", tmp_path / "sweep.yaml")
    assert cluster.finished("tiny").done == 2
    cells = cluster.cells("tiny", with_results=True)
    assert_one_attempt_accepted_each(cluster, cells)
    (cell,) = [cell for cell in cells if cell.kind == module("sweep_pb2").RUN_KIND_PRETRAIN]
    return cell, sorted(cluster.explain(cell.cell).attempts, key=lambda a: a.attempt_id)


def loss_of(cell):
    return json.loads(cell.result_json)["metrics"]["validation_loss"]


@pytest.fixture(scope="module")
def loss_of_one(stubs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    cluster = clusters.Cluster(folder).start_coordinator()
    try:
        cluster.start_worker("worker", trainers=[f"builtin={build_dir() / 'allo-trainer'}"])
        return loss_of(train(cluster, folder, 1)[0])
    finally:
        cluster.close()


@needs_trainer
@pytest.mark.parametrize("workers", [1, 2])
def test_the_built_in_trainers_ranks_give_the_loss_of_one(cluster, tmp_path, loss_of_one, workers):
    for name in [f"worker{i}" for i in range(workers)]:
        cluster.start_worker(name, slots=2 // workers, trainers=[f"builtin={build_dir() / 'allo-trainer'}"])
    cell, (attempt,) = train(cluster, tmp_path, 2)
    assert len(set(attempt.rank_workers)) == workers and len(attempt.rank_workers) == 2
    assert loss_of(cell) == pytest.approx(loss_of_one, rel=1e-4)


@needs_trainer
def test_the_built_in_trainer_goes_on_after_a_death(cluster, tmp_path, loss_of_one):
    wrapper = [sys.executable, ROOT / "tests/e2e/die_once.py", "trainer.checkpoint_placed:3", "pretrain", tmp_path / "marker",
               build_dir() / "allo-trainer"]
    for name in ("one", "two"):
        cluster.start_worker(name, slots=1, trainers=["builtin=" + " ".join(str(word) for word in wrapper)])
    cell, attempts_made = train(cluster, tmp_path, 2)
    first, second = attempts_made
    assert (first.outcome, first.signal, second.outcome) == ("crash", signal.SIGKILL, "done")
    assert second.first_step == 3
    assert loss_of(cell) == pytest.approx(loss_of_one, rel=1e-4)
