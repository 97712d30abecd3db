"""Workers with pretended GPUs: runs that share one, memory, and GPUs that fail."""
import json
import sys

import pytest

from cluster import ROOT, assert_every_result_accepted_once, corpus, fake_spec, submit, wait_until

ECC = "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1"
BUSY = "RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable"
OLD = "RuntimeError: The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver"


def gpu(number, **more):
    return {"device": f"cuda:{number}", "name": "Pretend 80GB", "uuid": f"GPU-{number}", "memory_bytes": 80_000_000_000, **more}


class Gpus:
    """A worker whose probe and trainers go by a file."""

    def __init__(self, cluster, folder, name, *devices):
        self.state = folder / f"{name}.gpus"
        self.write(*devices)
        command = f"{sys.executable} {ROOT / 'tests/e2e/gpu_trainer.py'} {self.state}"
        cluster.start_worker(name, trainers=[f"builtin={command}", f"fake={command}"], devices=True)

    def write(self, *devices):
        written = self.state.with_suffix(".new")
        written.write_text(json.dumps({"devices": devices}))
        written.rename(self.state)

    def journal(self):
        path = self.state.with_name(self.state.name + ".journal")
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def attempts(cluster, cell="s/fake-n1-s0"):
    return sorted(cluster.explain(cell).attempts, key=lambda a: a.attempt_id)


def most_at_once(journal):
    """By device: the largest sum of shares, and of runs, that it had at one time."""
    shares, runs, most = {}, {}, {}
    for what, device, share in journal:
        sign = 1 if what == "start" else -1
        shares[device] = shares.get(device, 0) + sign * float(share)
        runs[device] = runs.get(device, 0) + sign
        most[device] = max(most.get(device, (0, 0)), (shares[device], runs[device]))
    return most


def test_small_runs_share_a_gpu_and_large_ones_do_not(cluster, tmp_path):
    spec = fake_spec("s", orders=2, seeds=6, steps=40, step_ms=20)
    spec.sizes[0].slots_per_gpu = "4"
    submit(cluster, spec, corpus(tmp_path))
    worker = Gpus(cluster, tmp_path, "worker", gpu(0), gpu(1))
    assert cluster.finished("s").done == 12
    assert_every_result_accepted_once(cluster, "s")
    journal = worker.journal()
    assert {(device, share) for _, device, share in journal} >= {("cuda:0", "0.25"), ("cuda:1", "0.25"), ("cuda:0", "1")}
    for device, (shares, runs) in most_at_once(journal).items():
        assert shares <= 1, device
    assert max(runs for _, runs in most_at_once(journal).values()) > 1, "at the same time"


@pytest.mark.parametrize("raises, exit_code, outcome, advice", [
    (ECC, 1, "device_lost", "dmesg"), ("Xid 79", 47, "device_lost", "dmesg"), (BUSY, 1, "device_full", "nvidia-smi"),
    ("no room", 48, "device_full", "nvidia-smi")])
def test_a_failed_gpu_gets_nothing_until_it_is_whole(cluster, tmp_path, raises, exit_code, outcome, advice):
    broken = gpu(0, then=f"{outcome}: seen by the probe", raises=raises, exit_code=exit_code)
    submit(cluster, fake_spec("s", orders=1, seeds=1, steps=60, step_ms=5), corpus(tmp_path))
    worker = Gpus(cluster, tmp_path, "worker", broken)
    wait_until(lambda: len(attempts(cluster)) and attempts(cluster)[0].outcome == outcome, "the failure")
    assert advice in attempts(cluster)[0].message
    wait_until(lambda: outcome in cluster.explain("s/fake-n1-s0").text, "the reason why it waits")
    assert outcome in cluster.allo("workers", "list", "--format", "csv").stdout
    other = Gpus(cluster, tmp_path, "other", gpu(0))
    assert cluster.finished("s").done == 1
    assert_every_result_accepted_once(cluster, "s")
    assert [a.outcome for a in attempts(cluster)] == [outcome, "done"]
    assert attempts(cluster)[1].first_step >= 10, "it goes on from its checkpoint"
    assert other.journal()

    worker.write(gpu(0))
    wait_until(lambda: outcome not in cluster.allo("workers", "list", "--format", "csv").stdout, "the probe to find it whole")


def test_an_old_driver_is_every_gpus_by_the_probe_alone(cluster, tmp_path):
    submit(cluster, fake_spec("s", orders=1, seeds=1, steps=30), corpus(tmp_path))
    Gpus(cluster, tmp_path, "worker", *[gpu(n, fault="driver_too_old: CUDA 12.4") for n in (0, 1)])
    wait_until(lambda: cluster.allo("workers", "list", "--format", "csv").stdout.count("CUDA 12.4") == 2, "the probe's word")
    other = Gpus(cluster, tmp_path, "other", gpu(0, raises=OLD))
    wait_until(lambda: len(attempts(cluster)) and attempts(cluster)[0].outcome == "driver_too_old", "the failure")
    other.write(gpu(0))
    assert "Update the driver" in attempts(cluster)[0].message
    assert cluster.finished("s").done == 1, "for a trainer of one's own it is a crash, and its GPU stays in service"


def test_a_gang_loses_a_gpu_and_goes_on_elsewhere(cluster, tmp_path):
    submit(cluster, fake_spec("s", orders=1, seeds=1, steps=60, step_ms=5, devices=2), corpus(tmp_path))
    Gpus(cluster, tmp_path, "worker", gpu(0, raises=ECC, then="device_lost: still"), gpu(1))
    wait_until(lambda: len(attempts(cluster)) and attempts(cluster)[0].outcome == "device_lost", "the failure")
    assert "rank 0 on worker" in attempts(cluster)[0].message
    Gpus(cluster, tmp_path, "other", gpu(0))
    assert cluster.finished("s").done == 1
    assert sorted(attempts(cluster)[-1].rank_workers) == ["other", "worker"]


def test_what_cannot_be_placed_says_why(cluster, tmp_path):
    submit(cluster, fake_spec("s", orders=1, seeds=1, devices=2), corpus(tmp_path))
    Gpus(cluster, tmp_path, "mixed", gpu(0), {**gpu(1), "name": "Another 40GB"})
    wait_until(lambda: "those of mixed are of several" in cluster.explain("s/fake-n1-s0").text, "the reason why it waits")
    Gpus(cluster, tmp_path, "one", gpu(0))
    wait_until(lambda: "at most 1 ('Pretend 80GB')" in cluster.explain("s/fake-n1-s0").text, "what there is")
