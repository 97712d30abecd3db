#!/usr/bin/env python3
"""bench/gpu/study.py with a trainer that trains nothing: pieces, resuming, failures, and the table."""
import csv
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
STUDY, FAKE = ROOT / "bench/gpu/study.py", ROOT / "tests/e2e/fake_trainer.py"
STOPPED = 40
STEPS = 60
TEXT = {"kind": "prepare", "corpus": {"files": [{"name": "a.txt", "sha256": "a" * 64}]}, "tokenizer": {"vocabulary": 164}, "seed": 0}


class Study(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "data").mkdir()
        (self.folder / "data/data.json").write_text(json.dumps({"recipe": {**TEXT, "shard_tokens": 5}}))

    def plan(self, cells):
        """cells: (name, options of the fake trainer)"""
        planned = [{"cell": "prepare", "run": TEXT, "training_flops": None, "memory_bytes": None}]
        for name, options in cells:
            architecture, _, seed = name.split("-")
            options = {"order": 1, "step_ms": 1, "journal": str(self.folder / "journal"), **options}
            run = {"kind": "pretrain", "seed": int(seed[1:]), "steps": STEPS, "batch_sequences": 8, "data": "d" * 64,
                   "model": {"architecture": architecture, "options": options, "shape": {}}}
            planned.append({"cell": name, "run": run, "training_flops": 10.0 ** options["order"], "memory_bytes": 10})
        planned.append({"cell": "glu-s1-s0-ft", "run": {"kind": "finetune"}, "training_flops": 1, "memory_bytes": 1})
        (self.folder / "plan.json").write_text(json.dumps({"cells": planned}))

    def start(self, *arguments):
        return subprocess.Popen([sys.executable, str(STUDY), "run", "--plan", str(self.folder / "plan.json"), "--trainer", str(FAKE), "--data",
                                 str(self.folder / "data"), "-o", str(self.folder / "study"), "--device", "cpu", *arguments,
                                 "--launcher", sys.executable], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run_study(self, *arguments):
        process = self.start(*arguments)
        output, errors = process.communicate()
        return process.returncode, output + errors

    def table(self):
        with open(self.folder / "study/results/runs.csv") as file:
            return {row["cell"]: row for row in csv.DictReader(file)}

    def journal(self):
        return [line.split() for line in (self.folder / "journal").read_text().splitlines()]

    def test_goes_on_where_it_was_stopped(self):
        self.plan([(f"glu-s{order}-s0", {"order": order, "step_ms": 50 if order == 4 else 1}) for order in (1, 2, 3, 4)])
        process = self.start("--slots", "2")
        checkpoint = self.folder / "study/work/glu-s4-s0/checkpoint/state"
        while not checkpoint.exists():
            self.assertIsNone(process.poll(), "ended before it was stopped")
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        output = process.communicate()[0]
        self.assertEqual(process.returncode, STOPPED)
        self.assertIn("not run here: glu-s1-s0-ft", output)
        self.assertNotIn("glu-s4-s0", self.table())
        stopped = [int(step) for what, order, _, _, step in self.journal() if what == "stop" and order == "4"]
        self.assertEqual(len(stopped), 1)
        code, output = self.run_study("--slots", "2")
        self.assertEqual(code, 0, output)
        starts = [int(step) for what, order, _, _, step in self.journal() if what == "start" and order == "4"]
        self.assertEqual(starts, [0, stopped[0]])
        rows = self.table()
        self.assertEqual(sorted(rows), [f"glu-s{i}-s0" for i in (1, 2, 3, 4)])
        self.assertEqual({(r["architecture"], r["state"], r["seed"]) for r in rows.values()}, {("glu", "done", "0")})
        self.assertEqual(rows["glu-s3-s0"]["size"], "s3")
        self.assertAlmostEqual(float(rows["glu-s2-s0"]["validation_loss"]), 6 - 0.5 * 5 + 0.01)
        self.assertNotIn("device_seconds", rows["glu-s2-s0"])  # they shared the device
        self.assertEqual(list((self.folder / "study/work").iterdir()), [])
        before = self.journal()
        self.assertEqual(self.run_study()[0], 0)
        self.assertEqual(self.journal(), before)

    def test_a_crash_is_tried_again_and_a_mistake_is_not(self):
        self.plan([("glu-s1-s0", {"order": 1, "die_once": str(self.folder / "died")}), ("glu-s2-s0", {"order": 2, "exit_code": 42}),
                   ("glu-s3-s0", {"order": 3, "exit_code": 44}), ("glu-s4-s0", {"order": 4, "exit_code": 45})])
        code, output = self.run_study()
        self.assertEqual(code, 0, output)
        self.assertEqual({name: row["state"] for name, row in self.table().items()},
                         {"glu-s1-s0": "done", "glu-s2-s0": "failed", "glu-s3-s0": "diverged", "glu-s4-s0": "failed"})
        self.assertEqual(output.count("glu-s4-s0: started"), 3)
        self.assertEqual(output.count("glu-s2-s0: started"), 1)
        self.assertIn("device_seconds", self.table()["glu-s1-s0"])  # it had the device for itself

    def test_a_limit_that_is_over_starts_nothing(self):
        self.plan([("glu-s1-s0", {})])
        code, output = self.run_study("--limit", "5", "--grace", "5")
        self.assertEqual(code, STOPPED, output)
        self.assertNotIn("started", output)

    def test_other_data_are_refused(self):
        self.plan([("glu-s1-s0", {})])
        (self.folder / "data/data.json").write_text(json.dumps({"recipe": {**TEXT, "tokenizer": {"vocabulary": 300}}}))
        code, output = self.run_study()
        self.assertNotEqual(code, 0)
        self.assertIn("another tokenizer", output)
        self.assertEqual(self.run_study("--any-data")[0], 0)


if __name__ == "__main__":
    unittest.main()
