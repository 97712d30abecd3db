#!/usr/bin/env python3
"""bench/gpu/study.py with a trainer that trains nothing: pieces, resuming, failures, the table; and bench/gpu/run.sh without a GPU."""
import csv
import json
import os
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
# Pretends to have a device, and keeps what it was told: a study removes the folder of a cell that is done.
ON_A_DEVICE = """#!/usr/bin/env python3
import json, os, pathlib, sys
if "--probe" in sys.argv:
    sys.exit(print(json.dumps({"devices": [{"device": "cuda:0", "memory_bytes": 100}]})))
told = pathlib.Path("run.json").read_text()
pathlib.Path(__file__).with_name("told.json").write_text(told)
launches = 59 if json.loads(told)["execution"]["kernels"] else 0
with open(os.environ["ALLOMETRY_EVENTS"], "a") as events:
    events.write(json.dumps({"event": "result", "metrics": {"steps": 60}, "report": {"graph_launches": launches}}) + "\\n")
"""
SLOPES = """architecture,x,y,alpha,seed_low,seed_high,seed_degrees_of_freedom,line_low,line_high,sizes,cells,flags,refused
transformer,flops,upstream,0.5021,,,,0.4898,0.5142,4,4,one seed,
transformer,flops,downstream,,,,,,,0,0,,"a slope needs two sizes, and there is 0"
transformer,parameters,upstream,0.9,,,,0.8,1.0,4,4,one seed,
performer,flops,upstream,0.31,0.3,0.32,4,0.2,0.4,4,8,,
glu,flops,upstream,0.77,,,,,,2,2,,
"""
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

    def test_kernels_and_their_graphs_are_for_a_device(self):
        trainer = self.folder / "trainer.py"
        trainer.write_text(ON_A_DEVICE)
        trainer.chmod(0o755)
        for place, (device, kernels, launches) in enumerate((("cpu", False, "0"), ("cuda:0", True, "59"))):
            self.plan([(f"glu-s{place}-s0", {})])
            code, output = self.run_study("--trainer", str(trainer), "--device", device)
            self.assertEqual(code, 0, output)
            execution = json.loads((self.folder / "told.json").read_text())["execution"]
            self.assertEqual((execution["device"], execution["kernels"]), (device, kernels))
            self.assertEqual(self.table()[f"glu-s{place}-s0"]["metric.graph_launches"], launches)

    def test_slopes_stand_beside_the_papers(self):
        done = subprocess.run([sys.executable, str(STUDY), "paper"], input=SLOPES, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        head, *lines, source = done.stdout.splitlines()
        self.assertEqual([line.split(maxsplit=2) for line in lines],
                         [["a(F,U)", "transformer", "0.502 (line 0.490 to 0.514)   0.54"], ["a(F,U)", "performer", "0.310 (seed 0.300 to 0.320)   0.25"],
                          ["a(F,D)", "transformer", "not measured                  0.28"], ["a(F,D)", "albert", "not measured                  -0.12"]])
        self.assertIn("arXiv 2207.10551", source)

    def test_other_data_are_refused(self):
        self.plan([("glu-s1-s0", {})])
        (self.folder / "data/data.json").write_text(json.dumps({"recipe": {**TEXT, "tokenizer": {"vocabulary": 300}}}))
        code, output = self.run_study()
        self.assertNotEqual(code, 0)
        self.assertIn("another tokenizer", output)
        self.assertEqual(self.run_study("--any-data")[0], 0)


class WithoutGpu(unittest.TestCase):
    def run_sh(self, folder, *arguments):
        done = subprocess.run([ROOT / "bench/gpu/run.sh", *arguments, f"{folder}/out", f"{folder}/data"], capture_output=True, text=True,
                              env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHON": sys.executable})
        return done.returncode, done.stdout + done.stderr

    def test_the_study_says_why_it_is_skipped(self):
        with tempfile.TemporaryDirectory() as folder:
            for asked in (("--study", "2"), ("--only", "5")):
                code, output = self.run_sh(folder, *asked)
                self.assertEqual(code, 0, output)
                self.assertRegex(output, "the study: not measured: (there is no GPU here|PyTorch is not there)")
                self.assertNotIn("items", output)

    def test_the_study_goes_without_other_items(self):
        with tempfile.TemporaryDirectory() as folder:
            code, output = self.run_sh(folder, "--only", "1", "5")
            self.assertEqual(code, 2, output)
            self.assertIn("--study", output)
        done = subprocess.run([sys.executable, str(ROOT / "bench/gpu/gpu.py"), "--only", "5"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("--study", done.stderr)


if __name__ == "__main__":
    unittest.main()
