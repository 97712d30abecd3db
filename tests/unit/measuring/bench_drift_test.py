#!/usr/bin/env python3
"""bench/ranks/drift.py, shortened: a row for each number of ranks, and in float32 the first step is that of one rank."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]


class Drift(unittest.TestCase):
    def test_a_row_for_each_number_of_ranks(self):
        with tempfile.TemporaryDirectory() as folder:
            output = pathlib.Path(folder) / "drift.json"
            subprocess.run([sys.executable, ROOT / "bench/ranks/drift.py", os.environ["ALLO_TRAINER"], "-o", output, "--steps", "4",
                            "--architectures", "glu"], check=True, stdout=subprocess.DEVNULL)
            result = json.loads(output.read_text())
        self.assertEqual(result["settings"]["steps"], 4)
        self.assertEqual([(row["architecture"], row["ranks"]) for row in result["rows"]], [("glu", 2), ("glu", 4)])
        for row in result["rows"]:
            self.assertLess(row["first_loss"], 1e-5)
            self.assertLess(row["first_gradient_norm"], 1e-4)
            self.assertGreaterEqual(row["largest_loss"], row["first_loss"])


if __name__ == "__main__":
    unittest.main()
