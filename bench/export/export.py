#!/usr/bin/env python3
"""How long `allo export --what metrics` takes for a database of many runs, from the file and through a coordinator.

The database is made up here from the project's own migrations: RUNS finished runs with ROWS points of one series each. Peer:
sqlite3's own `.mode csv` over the same number of plain rows, which is what a database of unpacked rows would cost.
"""
import argparse
import json
import pathlib
import shutil
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

from provenance import provenance  # noqa: E402


def pack(steps, values):
    """coordinator/store/metric_chunk.h: signed LEB128 differences of the steps, then little-endian doubles."""
    raw = bytearray()
    previous = 0
    for step in steps:
        delta, previous = step - previous, step
        while True:
            low, delta = delta & 0x7F, delta >> 7
            last = (delta == 0 and not low & 0x40) or (delta == -1 and low & 0x40)
            raw.append(low if last else low | 0x80)
            if last:
                break
    return zlib.compress(bytes(raw) + struct.pack(f"<{len(values)}d", *values), 1)


def make_database(path, runs, rows):
    db = sqlite3.connect(path)
    for migration in sorted((ROOT / "sql").glob("[0-9]*.sql")):
        db.executescript(migration.read_text())
    db.execute(f"PRAGMA user_version = {len(list((ROOT / 'sql').glob('[0-9]*.sql')))}")
    db.execute("INSERT INTO sweeps (sweep_id, name, state, policy, submitted_unix_ms) VALUES (1, 'made-up', 'finished', 'fifo', 0)")
    db.execute("INSERT INTO workers (worker_id, worker_uuid, name, state, slots, registered_unix_ms, last_seen_unix_ms)"
               " VALUES (1, 'w', 'w', 'left', 1, 0, 0)")
    steps = list(range(10, 10 * rows + 1, 10))
    for run in range(1, runs + 1):
        size, seed = run // 5, run % 5
        db.execute("INSERT INTO runs (run_id, identity, kind, trainer, run_json, costs_json, state, accepted_attempt, created_unix_ms)"
                   " VALUES (?, ?, 'pretrain', 'builtin', '{}', '{}', 'done', ?, 0)", (run, f"{run:064x}", run))
        db.execute("INSERT INTO cells (sweep_id, name, run_id, position, kind, architecture, size, seed) VALUES"
                   " (1, ?, ?, ?, 'pretrain', 'transformer', ?, ?)", (f"transformer-n{size}-s{seed}", run, run, f"n{size}", seed))
        db.execute("INSERT INTO attempts (attempt_id, run_id, generation, worker_id, sweep_id, outcome, accepted, started_unix_ms)"
                   " VALUES (?, ?, 1, 1, 1, 'done', 1, 0)", (run, run))
        db.execute("INSERT INTO results (run_id, attempt_id, event) VALUES (?, ?, ?)", (run, run, run))
        db.execute("INSERT INTO events (event, sweep_id, run_id, unix_ms) VALUES (?, 1, ?, 0)", (run, run))
        values = [6 / (1 + step ** 0.1) + run * 1e-7 + (step * 7919 % 101) * 1e-4 for step in steps]
        db.execute("INSERT INTO metrics (attempt_id, series, sequence, first_step, points, data) VALUES (?, 'loss', 0, 10, ?, ?)",
                   (run, rows, pack(steps, values)))
    db.commit()
    db.execute("PRAGMA journal_mode = WAL")
    db.close()


def timed(command, environment=None):
    start = time.monotonic()
    subprocess.run([str(word) for word in command], check=True, capture_output=True, env=environment)
    return time.monotonic() - start


def peer_table(path, csv):
    """The exported rows as a plain table, for sqlite3's own writer."""
    subprocess.run(["sqlite3", str(path), ".mode csv", f".import {csv} rows"], check=True, capture_output=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--allo", default=ROOT / "build/release/allo")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", help="JSON to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        data = folder / "data"
        data.mkdir(mode=0o700)
        make_database(data / "allometry.db", arguments.runs, arguments.rows)
        seconds = {"file_csv": [], "file_jsonl": [], "coordinator_csv": [], "sqlite3_csv": []}
        csv = folder / "metrics.csv"
        timed([arguments.allo, "export", "--what", "metrics", "--db", data / "allometry.db", "-o", csv])
        csv_bytes = csv.stat().st_size
        if shutil.which("sqlite3"):
            peer_table(folder / "peer.db", csv)
        coordinator = subprocess.Popen([str(arguments.allo), "coordinator", "--data", str(data), "--listen", "127.0.0.1:0"],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(600):
                if (data / "endpoint.json").exists():
                    break
                time.sleep(0.1)
            for _ in range(arguments.rounds):
                export = [arguments.allo, "export", "--what", "metrics"]
                seconds["file_csv"].append(timed([*export, "--db", data / "allometry.db", "-o", csv]))
                seconds["file_jsonl"].append(timed([*export, "--format", "jsonl", "--db", data / "allometry.db", "-o",
                                                    folder / "metrics.jsonl"]))
                seconds["coordinator_csv"].append(timed([*export, "--data", data, "-o", csv]))
                if shutil.which("sqlite3"):
                    seconds["sqlite3_csv"].append(timed(["sqlite3", "-header", "-csv", folder / "peer.db", f".output {csv}",
                                                         "SELECT * FROM rows"]))
        finally:
            coordinator.terminate()
            coordinator.wait()
    result = provenance("export") | {"runs": arguments.runs, "rows_each": arguments.rows, "rounds": arguments.rounds, "csv_bytes": csv_bytes,
              "median_seconds": {name: round(statistics.median(times), 2) for name, times in seconds.items() if times}}
    print(json.dumps(result, indent=2))
    if arguments.output:
        pathlib.Path(arguments.output).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
