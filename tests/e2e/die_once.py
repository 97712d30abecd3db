#!/usr/bin/env python3
"""Runs a trainer that dies once: the first run of a kind (its rank 0) gets ALLOMETRY_FAULT_POINT, all others do not.

die_once.py POINT KIND MARKER TRAINER... --config run.json; MARKER is a file that is made when the variable has been given out.
Every step leaves a checkpoint.
"""
import contextlib
import json
import os
import pathlib
import sys


def main():
    point, kind, marker, *trainer = sys.argv[1:]
    path = pathlib.Path(trainer[-1])
    config = json.loads(path.read_text())
    config["execution"]["checkpoint_interval_s"] = 0
    path.write_text(json.dumps(config))
    first_rank = config["execution"].get("rank", 0) == 0
    if config["run"]["kind"] == kind and first_rank:
        with contextlib.suppress(FileExistsError):  # made by one alone, though two get here at once
            pathlib.Path(marker).touch(exist_ok=False)
            os.environ["ALLOMETRY_FAULT_POINT"] = point
    os.execv(trainer[0], trainer)


if __name__ == "__main__":
    main()
