"""Runs on several devices with real processes: on one worker and on two, and what follows when a rank, its worker or the coordinator dies."""
import os
import signal

import pytest

from cluster import assert_every_result_accepted_once, corpus, fake_spec, submit, wait_until
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
