"""Death at every named fault point (common/fault_point.h): what was told stays true, each run gets one result, the sweep ends.

A point is "name" or "name:N", N being the arrival at which the process dies. A test that never reaches its point fails.
"""
import contextlib
import hashlib
import json
import re
import signal
import sys

import grpc
import pytest

import cluster as clusters
from cluster import (HANGS_S, ROOT, assert_every_result_accepted_once, assert_one_attempt_accepted_each, build_dir, corpus,
                     fake_spec, module, submit, wait_until)

VARIABLE = "ALLOMETRY_FAULT_POINT"
# The first few commits are of submission and registration; later ones carry orders, progress and results.
COORDINATOR = ["coordinator.before_commit:2", "coordinator.before_commit:12", "coordinator.after_commit:2",
               "coordinator.after_commit:5", "coordinator.after_commit:12", "coordinator.after_delivery:5",
               "coordinator.after_delivery:12", "coordinator.finish_applied", "coordinator.finish_applied:4"]
BLOBS = ["coordinator.blob_synced", "coordinator.blob_placed"]
SUBMISSION = "coordinator.submission_part"
WORKER = ["worker.lease_taken", "worker.lease_taken:4", "worker.trainer_started", "worker.trainer_started:4",
          "worker.trainer_ended", "worker.trainer_ended:4", "worker.finish_answered", "worker.finish_answered:4"]
UPLOAD = "worker.upload_part:2"
INPUTS = "worker.input_fetched"
# With the kind of run that dies, and the step that its second attempt goes on from (every step leaves a checkpoint).
STEPS = 20
TRAINER = [("trainer.data_stage:2", "prepare", 0), ("trainer.data_batch", "prepare", 0),
           ("trainer.data_written", "prepare", 0), ("trainer.result_written", "prepare", 0),
           ("trainer.checkpoint_written:3", "pretrain", 2), ("trainer.checkpoint_placed:3", "pretrain", 3),
           ("trainer.outputs_written", "pretrain", STEPS), ("trainer.result_written", "pretrain", STEPS)]
RUNS = 6


def test_all_points_are_tried_and_listed():
    sources = [path for folder in ("common", "coordinator", "worker") for path in (ROOT / folder).rglob("*.cc")]
    placed = {name for path in sources for name in re.findall(r'FaultPoint\("([^"]+)"\)', path.read_text())}
    tried = {point.split(":")[0] for point in
             [*COORDINATOR, *BLOBS, SUBMISSION, *WORKER, UPLOAD, INPUTS, *(point for point, _, _ in TRAINER)]}
    listed = set(re.findall(r"^\| `((?:coordinator|worker|trainer)\.\w+)` \|", (ROOT / "docs/failure.md").read_text(), re.M))
    assert placed == tried == listed


def spec(tmp_path, **options):
    return fake_spec("s", orders=2, seeds=3, steps=20, step_ms=5, journal=str(tmp_path / "journal"), **options)


def journalled(tmp_path, what):
    path = tmp_path / "journal"
    return [line.split() for line in path.read_text().splitlines() if line.startswith(what)] if path.exists() else []


def done(cells):
    return {cell.cell for cell in cells if cell.state == module("sweep_pb2").RUN_STATE_DONE}


def wait_for_death(cluster, process, point):
    """Waits until the process has died at the point; returns the cells that were told as done before."""
    told, request = set(), module("sweep_service_pb2").ListRequest(sweep="s")

    def dead():
        with contextlib.suppress(grpc.RpcError):  # the coordinator may be the one that dies
            told.update(done(cluster.sweeps.List(request, timeout=5).cells))
        return not process.running()

    wait_until(dead, f"the death at {point}")
    assert process.popen.returncode == -signal.SIGKILL
    # Not always the last one: other threads may write between the message and the death.
    assert f"dies at fault point {point.split(':')[0]}" in process.log.read_text().splitlines()
    return told


def assert_all_done(cluster, told):
    assert cluster.finished("s").done == RUNS
    assert_every_result_accepted_once(cluster, "s")
    assert told <= done(cluster.cells("s"))


# ---- the coordinator ----

def survive_coordinator(make_cluster, tmp_path, point, **options):
    """Lets the coordinator die at the point and starts it again; the worker lives through it."""
    cluster = make_cluster(environment={VARIABLE: point})
    with contextlib.suppress(grpc.RpcError):  # it may die before the answer; the client then asks again
        submit(cluster, spec(tmp_path, **options), corpus(tmp_path))
    cluster.start_worker("worker")
    told = wait_for_death(cluster, cluster.coordinator, point)
    del cluster.environment[VARIABLE]
    cluster.start_coordinator()
    submit(cluster, spec(tmp_path, **options), corpus(tmp_path))
    assert told <= done(cluster.cells("s")), "what was told as done stays done"
    assert_all_done(cluster, told)
    return cluster


@pytest.mark.parametrize("point", COORDINATOR)
def test_coordinator(make_cluster, tmp_path, point):
    survive_coordinator(make_cluster, tmp_path, point)
    assert len(journalled(tmp_path, "start")) == RUNS, "no lease was lost by the restart: nothing ran twice"


@pytest.mark.parametrize("point", BLOBS)
def test_coordinator_in_an_upload(make_cluster, tmp_path, point):
    """The trainer crashes, the worker uploads its checkpoint, and the coordinator dies of it."""
    survive_coordinator(make_cluster, tmp_path, point, die_once=str(tmp_path / "died"))
    starts = [int(words[4]) for words in journalled(tmp_path, "start")]
    assert len(starts) == RUNS + 1 and max(starts) == 10, "the crashed run alone ran again, from its checkpoint"
    assert not list((tmp_path / "data/blobs/partial").iterdir()), "the upload came to its end"


def test_coordinator_in_a_submission(make_cluster, tmp_path):
    """A sweep takes a transaction for every 1,000 cells, and is there only after the last one."""
    cluster = make_cluster(environment={VARIABLE: SUBMISSION})
    large = fake_spec("s", orders=1, seeds=0)
    large.seeds.extend(range(1, 1101))
    with pytest.raises(grpc.RpcError):
        submit(cluster, large, corpus(tmp_path))
    wait_for_death(cluster, cluster.coordinator, SUBMISSION)
    del cluster.environment[VARIABLE]
    cluster.start_coordinator()
    with pytest.raises(grpc.RpcError) as half:
        cluster.get("s")
    assert half.value.code() == grpc.StatusCode.NOT_FOUND
    assert submit(cluster, large, corpus(tmp_path)).sweep.cells == 1100
    cluster.start_worker("worker", slots=32, trainers=[f"fake={ROOT / 'tests/e2e/quick_trainer.sh'}"])
    assert cluster.finished("s").done == 1100
    assert_every_result_accepted_once(cluster, "s")


# ---- the worker ----

def survive_worker(cluster, point, slots=2):
    """Lets a worker die at the point, and another come under its name and in its folder."""
    cluster.environment[VARIABLE] = point
    doomed = cluster.start_worker("worker", slots=slots)
    told = wait_for_death(cluster, doomed, point)
    del cluster.workers["worker"], cluster.environment[VARIABLE]
    cluster.start_worker("worker")
    assert_all_done(cluster, told)


@pytest.mark.parametrize("point", WORKER)
def test_worker(cluster, tmp_path, point):
    submit(cluster, spec(tmp_path), corpus(tmp_path))
    survive_worker(cluster, point)


def test_worker_in_an_upload(cluster, tmp_path):
    """The second of three parts of a checkpoint has left when the worker dies."""
    options = {"die_once": str(tmp_path / "died"), "checkpoint_bytes": 5 << 19}
    submit(cluster, spec(tmp_path, **options), corpus(tmp_path))
    survive_worker(cluster, UPLOAD, slots=1)
    starts = [int(words[4]) for words in journalled(tmp_path, "start")]
    assert sorted(starts) == [0] * RUNS + [10], "the crashed run alone ran again, from the checkpoint in the worker's folder"


def upload(cluster, content):
    worker_service = module("worker_service_pb2")
    chunk = worker_service.BlobChunk(sha256=hashlib.sha256(content).hexdigest(), data=content, total_bytes=len(content))
    cluster.stub("WorkerService", "worker_service").UploadBlob(iter([chunk]), timeout=HANGS_S)
    return chunk.sha256


def test_worker_between_its_inputs(cluster, tmp_path):
    """Two raw files that only the coordinator has; the worker dies with the first one."""
    files = []
    for name in ("one.txt", "two.txt"):
        content = f"The text of {name}.\n".encode()
        files.append(module("sweep_pb2").ManifestFile(role="corpus", name=name, bytes=len(content),
                                                      sha256=upload(cluster, content), path=f"/nowhere/{name}"))
    request = module("sweep_service_pb2").SubmitRequest(request_uuid="e2e-inputs", spec=spec(tmp_path), manifest=files)
    cluster.sweeps.Submit(request, timeout=HANGS_S)
    survive_worker(cluster, INPUTS)
    assert {path.name for path in (tmp_path / "worker/blobs").iterdir()} == {file.sha256 for file in files}


# ---- the built-in trainer ----

needs_trainer = pytest.mark.skipif(not (build_dir() / "allo-trainer").exists(), reason="allo-trainer is not built here")


def train(cluster, tmp_path, trainer):
    """The built-in trainer's tiny sweep, to its end: one preparation, one pretraining. Returns the cells by kind."""
    corpus(tmp_path)
    (tmp_path / "sweep.yaml").write_text(
        "name: tiny\ndata: {text: [corpus.txt]}\ntokenizer: {vocabulary: 400}\narchitectures: [transformer]\n"
        "sizes: [{name: a, d_model: 16, layers: 1, d_ff: 32, heads: 2, d_kv: 8}]\nseeds: [0]\n"
        f"pretraining: {{steps: {STEPS}, input_length: 32, batch_sequences: 4, evaluation_examples: 8, dropout: 0.1}}\n")
    cluster.start_worker("worker", trainers=[f"builtin={trainer}"])
    cluster.allo("submit", tmp_path / "sweep.yaml")
    assert cluster.finished("tiny").done == 2
    sweep_pb2 = module("sweep_pb2")
    kinds = {sweep_pb2.RUN_KIND_PREPARE: "prepare", sweep_pb2.RUN_KIND_PRETRAIN: "pretrain"}
    return {kinds[cell.kind]: cell for cell in cluster.cells("tiny", with_results=True)}


def validation_loss(cells):
    return json.loads(cells["pretrain"].result_json)["metrics"]["validation_loss"]


@pytest.fixture(scope="module")
def uninterrupted_loss(stubs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    cluster = clusters.Cluster(folder).start_coordinator()
    try:
        return validation_loss(train(cluster, folder, build_dir() / "allo-trainer"))
    finally:
        cluster.close()


@needs_trainer
@pytest.mark.parametrize("point, kind, resumed", TRAINER)
def test_trainer(cluster, tmp_path, uninterrupted_loss, point, kind, resumed):
    wrapper = [sys.executable, ROOT / "tests/e2e/die_once.py", point, kind, tmp_path / "marker", build_dir() / "allo-trainer"]
    cells = train(cluster, tmp_path, " ".join(str(word) for word in wrapper))
    first, second = sorted(cluster.explain(cells[kind].cell).attempts, key=lambda attempt: attempt.attempt_id)
    assert (first.outcome, first.signal, second.outcome) == ("crash", signal.SIGKILL, "done")
    assert f"dies at fault point {point.split(':')[0]}" in first.message
    assert second.first_step == resumed
    assert_one_attempt_accepted_each(cluster, cells.values())
    assert validation_loss(cells) == uninterrupted_loss, "a resumed run on a CPU is bit-equal to an uninterrupted one"
