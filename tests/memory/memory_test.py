#!/usr/bin/env python3
"""What `allo arch show` predicts as the peak memory of training, against the peak resident size of a trainer.

    ALLO=… ALLO_TRAINER=… memory_test.py ARCHITECTURE
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "unit/engine"))
import small_data
from trainer_process import Attempt, result

TOLERANCE = 0.15
INPUT_LENGTH = 512
SIZE, VOCABULARY = "tiny", 300  # the tokenizer's; the model has all 32,128 rows


class MemoryTest(unittest.TestCase):
    architecture = None

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="allometry-memory-")
        cls.addClassCleanup(folder.cleanup)
        cls.root = pathlib.Path(folder.name)
        raw = small_data.RawFiles(cls.root / "raw")
        prepared = Attempt(cls.root / "prepare", small_data.prepare_run(raw, vocabulary=VOCABULARY), {"files": raw.paths})
        assert prepared.finish() == 0, prepared.errors

    def ask(self, verb, batch, precision):
        command = [os.environ["ALLO"], "arch", *verb, "--size", SIZE, "--batch", str(batch),
                   "--input-length", str(INPUT_LENGTH), "--precision", precision, "--format", "json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def predicted(self, batch, precision):
        return self.ask(["show", self.architecture], batch, precision)

    def test_show_and_list_say_the_same(self):
        shown, listed = self.predicted(4, "bf16"), self.ask(["list"], 4, "bf16")
        self.assertEqual((shown["architecture"], shown["size"], listed["size"]), (self.architecture, SIZE, SIZE))
        self.assertEqual(shown["training_flops_per_step"], 3 * 4 * shown["forward_flops"])
        row, = [r for r in listed["architectures"] if r["architecture"] == self.architecture]
        for key in ("parameters", "non_embedding_parameters", "active_parameters", "forward_flops",
                    "training_flops_per_step", "mtf_multiply_adds", "memory_bytes"):
            self.assertEqual(row[key], shown[key], key)

    def measured(self, costs, batch, precision):
        run = {"kind": "pretrain", "trainer": "builtin", "data": "d" * 64, "seed": 0,
               "model": {"architecture": self.architecture, "options": costs["options"], "shape": costs["shape"]},
               "objective": {"name": "span_corruption", "input_length": INPUT_LENGTH},
               "optimizer": {"name": "adafactor", "learning_rate": 0.01, "schedule": "constant"},
               "batch_sequences": batch, "steps": 2, "evaluation": {"examples": 2 * batch}}
        attempt = Attempt(self.root / f"{batch}-{precision}", run,
                          {"inputs": {"data": str(self.root / "prepare/data")}, "precision": precision})
        self.assertEqual(attempt.finish(), 0, attempt.errors)
        metrics = result(attempt)["metrics"]
        self.assertEqual(metrics["parameters"], costs["parameters"])
        self.assertEqual(metrics["forward_flops"], costs["forward_flops"])
        return metrics["peak_memory_bytes"]

    def test_the_peak_is_predicted(self):
        for batch, precision in ((4, "fp32"), (8, "bf16")):
            costs = self.predicted(batch, precision)
            ratio = costs["memory_bytes"] / self.measured(costs, batch, precision)
            print(f"{self.architecture} {SIZE} {batch} x {INPUT_LENGTH} {precision}: predicted / measured {ratio:.3f}")
            with self.subTest(batch=batch, precision=precision):
                self.assertAlmostEqual(ratio, 1, delta=TOLERANCE)


if __name__ == "__main__":
    MemoryTest.architecture = sys.argv.pop(1)
    unittest.main()
