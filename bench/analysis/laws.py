#!/usr/bin/env python3
"""Times law fits beside SciPy's L-BFGS-B, in turn, on one thread each, and writes the figures.

    python bench/analysis/laws.py build/release/bench/bench_laws -o bench/results/laws.json [--runs CSV]

The task: the sum of Huber losses (delta 1e-3) of L(N, D) on 240 points, from 4,500 starts, and 4,000 bootstrap
replicates from the optimum. SciPy gets the same function with its analytic gradient in numpy, a random part of the starts
and of the replicates, and its time is scaled to all of them: the figures say which part. Times are processor seconds; wall
seconds stand beside them. --runs names the table of Chinchilla's runs (columns "Model Size", "Training FLOP", "loss"); by
default chinchilla_fig4.csv in $ALLOMETRY_SHARED_DATA/runs. Without it: 240 made-up points.
"""
import argparse
import csv
import datetime
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np  # noqa: E402
import scipy  # noqa: E402
from scipy.optimize import minimize  # noqa: E402

DELTA, STARTS, REPLICATES = 1e-3, 4500, 4000
DEFAULT_RUNS = pathlib.Path(os.environ.get("ALLOMETRY_SHARED_DATA", "../shared/data")) / "runs" / "chinchilla_fig4.csv"


def chinchilla(path):
    rows = list(csv.DictReader(open(path)))
    n, flops, loss = (np.array([float(r[k]) for r in rows]) for k in ("Model Size", "Training FLOP", "loss"))
    keep = np.argsort(loss, kind="stable")[:-5]
    return n[keep], (flops / 6 / n)[keep], loss[keep]


def made_up(rng, count=240):
    n = 10 ** rng.uniform(7.6, 10.2, count)
    d = n * 10 ** rng.uniform(0, 2.5, count)
    return n, d, (1.8172 + 477.8 / n**0.3473 + 2143 / d**0.3672) * np.exp(0.01 * rng.standard_t(2, count))


def huber(q, x, z, y, weight):
    a, b, e, alpha, beta = q
    terms = np.stack([a - alpha * x, b - beta * z, np.full_like(x, e)])
    top = terms.max(0)
    shares = np.exp(terms - top)
    total = shares.sum(0)
    shares /= total
    r = y - top - np.log(total)
    psi = weight * np.clip(r, -DELTA, DELTA)
    size = np.abs(r)
    value = (weight * np.where(size <= DELTA, r * r / 2, DELTA * (size - DELTA / 2))).sum()
    pa, pb, pe = psi * shares
    return value, np.array([-pa.sum(), -pb.sum(), -pe.sum(), (pa * x).sum(), (pb * z).sum()])


def descend(start, data):
    return minimize(huber, start, args=data, jac=True, method="L-BFGS-B",
                    options={"maxiter": 15000, "maxfun": 15000, "ftol": 1e-15, "gtol": 1e-9})


def seconds(work):
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}, result


def scipy_round(points, optimum, rng, starts, replicates):
    x, z, y = (np.log(v) for v in points)
    half = np.arange(0, 2.1, 0.5)
    grid = [(a, b, e, alpha, beta) for alpha, beta, e, a, b in
            itertools.product(half, half, np.arange(-1, 1.1, 0.5), range(0, 26, 5), range(0, 26, 5))]
    picked = [np.array(grid[i], float) for i in rng.choice(STARTS, starts, replace=False)]
    ones = np.ones_like(x)
    grid_time, ends = seconds(lambda: [descend(s, (x, z, y, ones)).fun for s in picked])
    counts = [np.bincount(rng.integers(0, len(x), len(x)), minlength=len(x)).astype(float) for _ in range(replicates)]
    bootstrap_time, _ = seconds(lambda: [descend(optimum, (x, z, y, c)) for c in counts])
    return {"grid": grid_time, "bootstrap": bootstrap_time, "lowest": float(min(ends)),
            "share_of_starts_at_best": float(np.mean(np.array(ends) < min(ends) * (1 + 1e-4)))}


def median(rounds, *keys):
    def value(entry):
        for key in keys:
            entry = entry[key]
        return entry
    return statistics.median(value(r) for r in rounds)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--runs", default=DEFAULT_RUNS, type=pathlib.Path)
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--scipy-starts", default=45, type=int)
    parser.add_argument("--scipy-replicates", default=40, type=int)
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    have = args.runs.exists()
    points = chinchilla(args.runs) if have else made_up(rng)
    ours, theirs = [], []
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{n!r} {d!r} {y!r}\n" for n, d, y in zip(*(map(float, v) for v in points)))
        file.flush()
        for _ in range(args.rounds):
            ours.append(json.loads(subprocess.run([args.program, file.name, "--replicates", str(REPLICATES)], check=True,
                                                  capture_output=True, text=True).stdout))
            e, a, b, alpha, beta = ours[-1]["huber"]["grid"]["parameters"]
            optimum = np.array([np.log(a), np.log(b), np.log(e), alpha, beta])
            theirs.append(scipy_round(points, optimum, rng, args.scipy_starts, args.scipy_replicates))
    report = {"bench": "laws", "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
              "commit": ours[0]["commit"], "cpu": ours[0]["cpu"], "load_average": os.getloadavg(), "scipy": scipy.__version__,
              "numpy": np.__version__, "points": len(points[0]), "rounds": args.rounds,
              "data": args.runs.name if have else "made up: the table of runs is absent",
              "goal": {"grid_seconds": 1, "bootstrap_seconds": 0.5, "times_faster": 100}}
    parts = {"grid": STARTS / args.scipy_starts, "bootstrap": REPLICATES / args.scipy_replicates}
    for part, factor in parts.items():
        entry = {"huber_" + kind: median(ours, "huber", part, kind) for kind in ("cpu_seconds", "wall_seconds")}
        entry["variable_projection_cpu_seconds"] = median(ours, "variable_projection", part, "cpu_seconds")
        entry["scipy_part"] = 1 / factor
        entry["scipy_cpu_seconds_scaled"] = factor * median(theirs, part, "cpu_seconds")
        entry["times_faster_than_scipy"] = entry["scipy_cpu_seconds_scaled"] / entry["huber_cpu_seconds"]
        report[part] = entry
    last = ours[-1]["huber"]["grid"]
    report["grid"] |= {"starts": last["starts"], "starts_at_best": last["starts_at_best"], "objective": last["objective"],
                       "scipy_lowest": min(r["lowest"] for r in theirs),
                       "scipy_share_of_starts_at_best": median(theirs, "share_of_starts_at_best")}
    pathlib.Path(args.output).write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
