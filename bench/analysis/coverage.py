#!/usr/bin/env python3
"""Makes the table of what intervals, verdicts and probabilities promise and what was found: bench/results/coverage.json.

  bench/analysis/coverage.py build/release/tests -o bench/results/coverage.json [--data-sets 10000]

Runs the coverage studies among the unit tests with as many data sets as asked (some draw more of their own accord)."""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from provenance import provenance  # noqa: E402

STUDIES = {"coverage_test": "*", "law_studies_test": "LawCoverage.*"}


def run(program, studies, data_sets):
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        environment = {**os.environ, "ALLOMETRY_COVERAGE_DATA_SETS": str(data_sets)}
        done = subprocess.run([program, f"--gtest_filter={studies}", f"--gtest_output=json:{out.name}", "--gtest_brief=1"],
                              env=environment, stdout=subprocess.PIPE, text=True)
        return json.load(open(out.name)), done.stdout if done.returncode else ""


def rows_of(report):
    for suite in report["testsuites"]:
        for test in suite["testsuite"]:
            for study, value in test.items():
                if isinstance(value, str) and value.startswith("{"):
                    figures = json.loads(value)
                    kept = figures["low"] <= figures["found"] <= figures["high"]
                    yield {"test": f"{suite['name']}.{test['name']}", "study": study, **figures, "kept": kept}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", type=pathlib.Path, help="folder of the unit tests' programs")
    parser.add_argument("-o", "--out", type=pathlib.Path, required=True)
    parser.add_argument("--data-sets", type=int, default=10_000)
    options = parser.parse_args()
    rows = []
    for program, studies in STUDIES.items():
        report, failure = run(options.tests / program, studies, options.data_sets)
        rows += rows_of(report)
        if failure:
            print(failure)
    result = provenance("coverage") | {"rows": rows}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{len(rows)} figures, {sum(not row['kept'] for row in rows)} outside what is promised: {options.out}")


if __name__ == "__main__":
    main()
