#!/usr/bin/env python3
"""Writes data/law_runs.json, made-up runs, and data/laws_reference.json, what fits to them must give.

An independent second implementation of the estimators of docs/science.md, "Laws", with SciPy's own optimisers: L-BFGS-B on
the sum of Huber losses from a part of the grid of starts, trust-region least squares on all parameters at once for what
analysis/ solves by variable projection. Run it again only when the definitions change; the test reads what it wrote.
"""
import itertools
import json
import pathlib

import numpy as np
from scipy.optimize import least_squares, minimize

HERE = pathlib.Path(__file__).parent / "data"
DELTA = 1e-3


def model(form, p, x, d=None):
    if form == "parameters_tokens":
        return p[0] + p[1] * x**-p[3] + p[2] * d**-p[4]
    if form == "tied":
        return p[0] + p[1] * x**-p[3] + p[2] * d**-p[3]
    if form == "compute":
        return p[0] + p[1] * x**-p[2]
    if form == "broken":
        return p[0] + p[1] * x**-p[2] * (1 + (x / p[4])**(1 / p[5]))**(-p[3] * p[5])
    if form == "sigmoid":
        return p[0] + p[1] / (1 + np.exp(p[2] * (x - p[3])))
    return p[0] - p[1] * np.exp(-p[2] * x)


TRUTH = {"parameters_tokens": [1.8, 480, 2100, 0.35, 0.37], "tied": [1.8, 480, 2100, 0.35], "compute": [1.7, 1600, 0.16],
         "broken": [1.5, 30, 0.06, 0.15, 3e19, 0.3], "sigmoid": [0.25, 0.6, 4, 2.6], "exponential": [0.8, 3, 0.9]}


def make_runs(form, rng):
    if form in ("parameters_tokens", "tied"):
        x = np.repeat(5e7 * 10**(0.4 * np.arange(6)), 6)
        d = x * np.tile(5.0 * 2**np.arange(6), 6)
    else:
        x = np.linspace(1.8, 4.2, 30) if form in ("sigmoid", "exponential") else 10**np.linspace(17, 22.5, 30)
        d = np.zeros_like(x)
    y = model(form, TRUTH[form], x, d)
    y = y + rng.normal(0, 0.004, len(y)) * (1 if form in ("sigmoid", "exponential") else y)
    return x, d, y


def huber(q, columns, y):
    """Value and gradient; q is a_1 .. a_K, e, alpha_1 .. alpha_K."""
    k = len(columns)
    terms = np.stack([q[i] - q[k + 1 + i] * c for i, c in enumerate(columns)] + [np.full_like(y, q[k])])
    top = terms.max(0)
    shares = np.exp(terms - top)
    total = shares.sum(0)
    shares /= total
    r = y - top - np.log(total)
    psi = np.clip(r, -DELTA, DELTA)
    value = np.where(np.abs(r) <= DELTA, r * r / 2, DELTA * (np.abs(r) - DELTA / 2)).sum()
    gradient = [-(psi * s).sum() for s in shares] + [(psi * shares[i] * c).sum() for i, c in enumerate(columns)]
    return value, np.array(gradient)


def fit_huber(form, x, d, y):
    columns = [np.log(x)] + ([np.log(d)] if form == "parameters_tokens" else [])
    k, best = len(columns), None
    grid = itertools.product(*([0, 10, 20] for _ in range(k)), [-0.5, 0.5], *([0.0, 0.5, 1.0] for _ in range(k)))
    for start in grid:
        end = minimize(huber, np.array(start, float), args=(columns, np.log(y)), jac=True, method="L-BFGS-B",
                       options={"maxiter": 20000, "maxfun": 20000, "ftol": 1e-16, "gtol": 1e-10})
        if best is None or end.fun < best.fun:
            best = end
    q = best.x
    return {"objective": best.fun, "parameters": [np.exp(q[k]), *np.exp(q[:k]), *q[k + 1:]]}


def fit_least_squares(form, x, d, y):
    scale = y if form in ("parameters_tokens", "compute", "broken") else 1.0
    positive = np.array([form != "broken" or i not in (2, 3) for i in range(len(TRUTH[form]))])

    def natural(t):
        return np.where(positive, np.exp(np.where(positive, t, 0)), t)

    start = np.array(TRUTH[form], float)
    start = np.where(positive, np.log(np.where(positive, start, 1)), start)
    end = least_squares(lambda t: (y - model(form, natural(t), x, d)) / scale, start, xtol=1e-15, ftol=1e-15, gtol=1e-15,
                        x_scale="jac", max_nfev=5000)
    return {"objective": end.cost, "parameters": list(natural(end.x))}


def main():
    rng = np.random.default_rng(203)
    runs, reference = {}, {}
    for form in TRUTH:
        x, d, y = make_runs(form, rng)
        runs[form] = [[float(a), float(b), float(c)] for a, b, c in zip(x, d, y)]
        reference[form] = {"variable_projection": fit_least_squares(form, x, d, y)}
        if form in ("parameters_tokens", "compute"):
            reference[form]["huber"] = fit_huber(form, x, d, y)
    HERE.mkdir(exist_ok=True)
    (HERE / "law_runs.json").write_text(json.dumps(runs, indent=1) + "\n")
    (HERE / "laws_reference.json").write_text(json.dumps(reference, indent=1, default=float) + "\n")


if __name__ == "__main__":
    main()
