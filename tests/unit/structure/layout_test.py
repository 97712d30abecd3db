#!/usr/bin/env python3
"""Includes go one way: cli -> coordinator -> report -> analysis -> records -> common, cli -> worker -> common, all may
use arch.

The trainer includes arch/ and common/ only, so that it builds without gRPC; the daemons include nothing of the trainer.
"""
import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
WIRE = "allometry"  # generated from proto/
MAY_INCLUDE = {
    "common": set(),
    "arch": {"common"},
    "records": {"common", "sql"},
    "analysis": {"records", "common", "arch"},
    "report": {"analysis", "records", "common", "arch"},
    "coordinator": {"report", "analysis", "records", "common", "arch", "sql", WIRE},
    "worker/supervisor": {"common"},
    "worker/daemon": {"worker/supervisor", "common", "arch", WIRE},
    "worker/trainer": {"common", "arch"},
    "cli": {"coordinator", "report", "analysis", "records", "worker/daemon", "common", "arch", WIRE},
}
INCLUDE = re.compile(r'^\s*#include "([^"]+)"', re.MULTILINE)
MOST_LINES = 800


def area_of(path):
    """The area of a path from the root: "worker/daemon", "arch", ...; None for generated and outside files."""
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] == "worker" else parts[0]


def sources(area):
    return sorted(path for pattern in ("*.h", "*.cc", "*.cu", "*.cuh") for path in (ROOT / area).rglob(pattern))


class Layout(unittest.TestCase):
    def test_includes_go_one_way(self):
        for area, allowed in MAY_INCLUDE.items():
            files = sources(area)
            self.assertTrue(files, f"{area} has no sources: has it moved?")
            for path in files:
                for included in INCLUDE.findall(path.read_text()):
                    self.assertIn("/", included, f"{path}: include from the root of the tree: {included}")
                    self.assertIn(area_of(included), allowed | {area}, f"{path} includes {included}")

    def test_files_stay_readable(self):
        for area in [*MAY_INCLUDE, "tests", "bench"]:
            for path in sources(area):
                self.assertLessEqual(len(path.read_text().splitlines()), MOST_LINES, path)


if __name__ == "__main__":
    unittest.main()
