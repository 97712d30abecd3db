#!/usr/bin/env python3
"""Writes data/cells.jsonl, a made-up study, and data/reference.json, what its analysis must give.

An independent second implementation of docs/science.md in numpy and mpmath: slopes by numpy.polyfit, variances by numerical
differentiation of the whole estimate, quantiles by root finding on the incomplete beta function, frontiers by the definition.
Run it again only when the definitions change; the test reads what it wrote.
"""
import itertools
import json
import pathlib

import mpmath
import numpy as np

HERE = pathlib.Path(__file__).parent / "data"
TASKS = ["gloss", "sense"]
PAIRS = [("flops", "upstream"), ("flops", "downstream"), ("parameters", "upstream"), ("parameters", "downstream"),
         ("upstream", "downstream"), ("seconds", "upstream"), ("seconds", "downstream")]
FLOPS = {"forward": "forward_flops", "mtf": "mtf_multiply_adds"}
PARAMETERS = {"total": "parameters", "non_embedding": "non_embedding_parameters"}


def make_cells():
    rng = np.random.default_rng(2207)
    grid = {  # architecture: (sizes, seeds, F of the smallest, factor, bend)
        "transformer": (4, 3, 1.0e9, 4.0, 0.00),
        "glu": (4, 2, 1.1e9, 4.0, 0.00),
        "albert": (6, 2, 0.4e9, 3.0, -0.06),
        "lconv": (3, 1, 0.9e9, 4.2, 0.00),
        "performer": (2, 2, 1.2e9, 5.0, 0.00),
    }
    cells = []
    for architecture, (sizes, seeds, first, factor, bend) in grid.items():
        for i in range(sizes):
            f = round(first * factor**i)
            for seed in range(1, seeds + 1):
                u = 0.5 * np.log10(f / 1e9) + bend * i * i - 4.6 + rng.normal(0, 0.02)
                d = 0.55 + 0.12 * (u + 4.6) + rng.normal(0, 0.006)
                cells.append({
                    "sweep": "made-up", "cell": f"{architecture}-z{i}-s{seed}", "architecture": architecture,
                    "size": f"z{i}", "seed": seed, "state": "done", "finetune_state": "done", "device": "cpu",
                    "metrics": {
                        "validation_loss": round(-u, 6), "forward_flops": f, "mtf_multiply_adds": round(f * (70 + 3 * i), 1),
                        "parameters": round(2e6 + f / 500), "non_embedding_parameters": round(f / 520),
                        "device_seconds": round(f / 2e8 * (1 + rng.normal(0, 0.03)), 4),
                        "peak_memory_bytes": round(1e8 + f / 7)},
                    "scores": {t: {"value": round(float(d + s), 4), "standard_error": 0.01, "majority": 0.5,
                                   "examples": 2000, "at_chance": False}
                               for t, s in (("gloss", 0.03), ("sense", -0.03))}})
    return cells


def axis(cell, name, conventions):
    if name == "flops":
        return cell["metrics"][FLOPS[conventions["flops"]]]
    if name == "parameters":
        return cell["metrics"][PARAMETERS[conventions["parameters"]]]
    if name == "seconds":
        return cell["metrics"]["device_seconds"]
    if name == "upstream":
        return -cell["metrics"]["validation_loss"]
    return float(np.mean([cell["scores"][t]["value"] for t in TASKS]))


def transformed(cell, x, y, conventions):
    vx, vy = axis(cell, x, conventions), axis(cell, y, conventions)
    if x == "upstream":
        return vx, vy
    if conventions["transform"] == "semilog":
        return np.log10(vx), vy
    return np.log(vx), -np.log(-vy) if y == "upstream" else -np.log(1 - vy)


def t_two_sided(t, df):  # P(|T| > t)
    return float(mpmath.betainc(df / 2, 0.5, 0, df / (df + t * t), regularized=True))


def t_quantile(confidence, df):
    goal = 1 - confidence
    return float(mpmath.findroot(lambda t: mpmath.betainc(df / 2, 0.5, 0, df / (df + t * t), regularized=True) - goal,
                                 (0.5, 200), solver="anderson", tol=1e-24, maxsteps=500))


def f_survival(f, d1, d2):
    return float(mpmath.betainc(d2 / 2, d1 / 2, 0, d2 / (d2 + d1 * f), regularized=True))


def slope_of(means_x, means_y):
    return float(np.polyfit(means_x, means_y, 1)[0])


def gradient(means_x, means_y):
    """Of the slope in every mean, by central differences."""
    h, out = 1e-6, []
    for which in (0, 1):
        row = []
        for i in range(len(means_x)):
            v = []
            for sign in (1, -1):
                m = [np.array(means_x, float), np.array(means_y, float)]
                m[which][i] += sign * h
                v.append(slope_of(*m))
            row.append((v[0] - v[1]) / (2 * h))
        out.append(row)
    return np.array(out).T  # sizes x 2


def estimate(cells, x, y, conventions, confidence=0.95):
    sizes = {}
    for c in cells:
        sizes.setdefault(c["size"], []).append(transformed(c, x, y, conventions))
    sizes = [np.array(v) for v in sizes.values()]
    n = np.array([len(s) for s in sizes])
    mx, my = np.array([s[:, 0].mean() for s in sizes]), np.array([s[:, 1].mean() for s in sizes])
    k, alpha, g = len(sizes), slope_of(mx, my), gradient(mx, my)
    sxx = ((mx - mx.mean())**2).sum()
    out = {"alpha": alpha, "sizes": k, "cells": int(n.sum()), "flags": []}
    degrees = int((n - 1).sum())
    x_varies = any(np.ptp(s[:, 0]) > 0 for s in sizes)
    if degrees:
        scatter = sum((s - s.mean(0)).T @ (s - s.mean(0)) for s in sizes)
        pooled = scatter / degrees
        if not x_varies and n.min() >= 3:
            terms = [g[i, 1]**2 * sizes[i][:, 1].var(ddof=1) / n[i] for i in range(k)]
            variance = sum(terms)
            df = variance**2 / sum(t * t / (m - 1) for t, m in zip(terms, n))
        else:
            variance = sum(g[i] @ pooled @ g[i] / n[i] for i in range(k))
            df = degrees
        half = t_quantile(confidence, df) * np.sqrt(variance)
        out["seed_interval"] = [alpha - half, alpha + half, df]
        out["variance"] = variance
        left = [s[:, 1] - alpha * s[:, 0] for s in sizes]
        sds = [v.std(ddof=1) for v in left if len(v) > 1]
        if max(sds) > 3 * min(sds):
            out["flags"].append("unequal seed sd")
        if k >= 3:
            w = np.polyfit(mx, my, 1, w=np.sqrt(n))
            lack = (n * (my - np.polyval(w, mx))**2).sum() / (k - 2)
            noise = sum(((v - v.mean())**2).sum() for v in left) / degrees
            if f_survival(lack / noise, k - 2, degrees) < 0.05:
                out["flags"].append("curved")
    else:
        out["flags"].append("one seed")
    if k == 2:
        out["flags"].append("two sizes")
    if k >= 3:
        degree = 2 if k >= 6 else 1
        rest = my - np.polyval(np.polyfit(mx, my, degree), mx)
        df = k - 1 - degree
        line_variance = (rest**2).sum() / df / sxx
        half = t_quantile(confidence, df) * np.sqrt(line_variance)
        out["line_interval"] = [alpha - half, alpha + half, df]
        out["line_variance"] = line_variance
    out["flags"].sort()
    return out


def difference(a, b, variance, interval):
    if interval not in a or interval not in b:
        return None
    va, vb, da, db = a[variance], b[variance], a[interval][2], b[interval][2]
    df = (va + vb)**2 / (va**2 / da + vb**2 / db)
    d = a["alpha"] - b["alpha"]
    half = t_quantile(0.95, df) * np.sqrt(va + vb)
    return {"low": d - half, "high": d + half, "degrees_of_freedom": df, "p": t_two_sided(abs(d) / np.sqrt(va + vb), df)}


def holm(p):
    order, out, running = np.argsort(p), [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        running = max(running, (len(p) - rank) * p[i])
        out[i] = min(1.0, running)
    return out


def pareto(cells, cost, quality):
    groups = {}
    for c in cells:
        groups.setdefault(f"{c['architecture']}-{c['size']}", []).append((c["metrics"][cost], quality(c)))
    mean = {k: tuple(np.mean(v, axis=0)) for k, v in groups.items()}
    on = [k for k, (c, q) in mean.items()
          if not any(c2 <= c and q2 >= q and (c2 < c or q2 > q) for c2, q2 in mean.values())]
    squares = sum(((np.array(v)[:, 1] - np.mean(v, axis=0)[1])**2).sum() for v in groups.values())
    degrees = sum(len(v) - 1 for v in groups.values())
    return {"frontier": sorted(on), "seed_sd": float(np.sqrt(squares / degrees)), "degrees_of_freedom": degrees,
            "probability": membership(mean, {k: len(v) for k, v in groups.items()}, np.sqrt(squares / degrees), degrees)}


def membership(mean, seeds, sd, degrees, draws=200_000):
    rng = np.random.default_rng(11)
    keys, costs = list(mean), np.array([c for c, _ in mean.values()])
    scale = sd * np.sqrt(degrees / rng.chisquare(degrees, draws))
    drawn = {k: mean[k][1] + rng.normal(size=draws) * scale / np.sqrt(seeds[k]) for k in keys}
    out = {}
    for i, k in enumerate(keys):
        rivals = [drawn[other] for j, other in enumerate(keys) if j != i and costs[j] <= costs[i]]
        out[k] = float(np.mean(np.all([r < drawn[k] for r in rivals], axis=0))) if rivals else 1.0
    return out


def main():
    mpmath.mp.dps = 30
    cells = make_cells()
    names = list(dict.fromkeys(c["architecture"] for c in cells))
    cases = []
    for transform, flops, parameters in (("semilog", "forward", "total"), ("loglog", "mtf", "non_embedding")):
        conventions = {"transform": transform, "flops": flops, "parameters": parameters}
        slopes = {a: {f"{x},{y}": estimate([c for c in cells if c["architecture"] == a], x, y, conventions)
                      for x, y in PAIRS} for a in names}
        comparisons = []
        for x, y in PAIRS:
            family = []
            for a in names[1:]:
                one, base = slopes[a][f"{x},{y}"], slopes[names[0]][f"{x},{y}"]
                family.append({"x": x, "y": y, "first": a, "second": names[0],
                               "difference": one["alpha"] - base["alpha"],
                               "seeds": difference(one, base, "variance", "seed_interval"),
                               "line": difference(one, base, "line_variance", "line_interval")})
            for kind in ("seeds", "line"):
                have = [c for c in family if c[kind]]
                for c, p in zip(have, holm([c[kind]["p"] for c in have])):
                    c[kind]["p_holm"] = p
            comparisons += family
        cases.append({**conventions, "slopes": slopes, "comparisons": comparisons})
    frontiers = {
        "flops,upstream": pareto(cells, "forward_flops", lambda c: -c["metrics"]["validation_loss"]),
        "parameters,downstream": pareto(cells, "parameters", lambda c: axis(c, "downstream", {})),
        "seconds,gloss": pareto(cells, "device_seconds", lambda c: c["scores"]["gloss"]["value"]),
        "memory,upstream": pareto(cells, "peak_memory_bytes", lambda c: -c["metrics"]["validation_loss"])}
    HERE.mkdir(exist_ok=True)
    (HERE / "cells.jsonl").write_text("".join(json.dumps(c) + "\n" for c in cells))
    (HERE / "reference.json").write_text(json.dumps({"slopes": cases, "pareto": frontiers}, indent=1) + "\n")


if __name__ == "__main__":
    main()
