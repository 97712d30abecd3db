#!/usr/bin/env python3
"""What allo-trainer says of GPUs, with a stand-in for CUDA's driver: the probe's verdicts, and exit codes before anything is trained."""
import json
import os
import pathlib
import subprocess
import tempfile
import unittest
import unittest.mock

import small_data
from trainer_process import TRAINER, Attempt
from trainer_process_test import PRETRAIN, VOCABULARY

STUB_FOLDER = os.environ["CUDA_STUB_FOLDER"]


def environment(**stub):
    return {**os.environ, "LD_LIBRARY_PATH": STUB_FOLDER, **{f"CUDA_STUB_{name.upper()}": str(value) for name, value in stub.items()}}


def probe(*options, **stub):
    done = subprocess.run([TRAINER, "--probe", *options], capture_output=True, text=True, env=environment(**stub), timeout=600, check=True)
    return [device for device in json.loads(done.stdout)["devices"] if device["device"] != "cpu"]


class TrainerDevicesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="allometry-devices-")
        cls.addClassCleanup(folder.cleanup)
        cls.root = pathlib.Path(folder.name)
        raw = small_data.RawFiles(cls.root / "raw")
        prepared = Attempt(cls.root / "prepare", small_data.prepare_run(raw, vocabulary=VOCABULARY), {"files": raw.paths})
        assert prepared.finish() == 0, prepared.errors

    def ending(self, device, **stub):
        with tempfile.TemporaryDirectory(dir=self.root) as folder, unittest.mock.patch.dict(os.environ, environment(**stub)):
            attempt = Attempt(folder, PRETRAIN, {"device": device, "inputs": {"data": str(self.root / "prepare/data")}})
            return attempt.finish(), attempt.errors

    def test_the_probe_tells_whole_devices(self):
        first, second = probe(devices=2)
        self.assertEqual((first["device"], second["device"]), ("cuda:0", "cuda:1"))
        self.assertEqual((first["fault"], second["fault"]), ("", ""))
        self.assertEqual((first["memory_bytes"], first["free_bytes"]), (80_000_000_000, 79_000_000_000))
        self.assertEqual(first["uuid"], "GPU-a0a0a0a0-a0a0-a0a0-a0a0-a0a0a0a0a0a0")
        self.assertNotEqual(first["uuid"], second["uuid"])

    def test_the_probe_finds_what_is_broken_or_busy(self):
        whole, broken, busy = probe(devices=3, broken=1, busy=2)
        self.assertEqual(whole["fault"], "")
        self.assertEqual(broken["fault"], "device_lost: unspecified launch failure (719)")
        self.assertTrue(busy["fault"].startswith("device_full: CUDA-capable device(s) is/are busy"), busy)

    def test_an_old_driver_is_every_devices(self):
        for device in probe(devices=2, version=12080):
            self.assertRegex(device["fault"], r"^driver_too_old: the NVIDIA driver knows CUDA 12\.8, and .* needs \d+\.0: update the driver$")

    def test_kernels_are_not_for_a_device_on_which_they_fail(self):
        whole, broken = probe("--check-kernels", devices=2, broken=1)
        self.assertEqual((whole["kernels"], whole["graphs"]), (False, False))
        self.assertIn("LibTorch", whole["why_not"])
        self.assertNotIn("kernels", broken)
        self.assertNotIn("kernels", probe(devices=1)[0])
        first, second = probe("--check-kernels", "cuda:1", devices=2)
        self.assertNotIn("kernels", first)
        self.assertIn("kernels", second)

    def test_training_on_an_old_driver_or_a_missing_device(self):
        code, errors = self.ending("cuda:0", devices=1, version=12080)
        self.assertEqual(code, 49, errors)
        self.assertIn("update the driver", errors)
        code, errors = self.ending("cuda:1", devices=1)
        self.assertEqual(code, 47, errors)
        self.assertIn("this machine offers 1 GPUs", errors)


if __name__ == "__main__":
    unittest.main()
