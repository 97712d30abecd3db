#!/usr/bin/env python3
"""Writes data/kendall.json: pairs of short rankings, many with ties, and scipy.stats.kendalltau's tau-b of them.

Run it again only to add cases; the test reads what it wrote. SciPy returns nan where a side is all ties; null there.
"""
import json
import math
import pathlib

import numpy as np
import scipy.stats


def main():
    rng = np.random.default_rng(1945)
    cases = []
    for i in range(120):
        n = int(rng.integers(2, 16))
        levels = [2, 4, 1000][i % 3]
        a, b = rng.integers(0, levels, n), rng.integers(0, levels, n)
        if i % 4 == 0:
            b = np.where(rng.random(n) < 0.7, a, b)
        tau = scipy.stats.kendalltau(a, b, variant="b").statistic
        cases.append({"a": a.tolist(), "b": b.tolist(), "tau": None if math.isnan(tau) else float(tau)})
    out = pathlib.Path(__file__).parent / "data" / "kendall.json"
    out.write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")


if __name__ == "__main__":
    main()
