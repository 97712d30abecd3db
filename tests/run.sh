#!/usr/bin/env bash
# Installs what is missing, builds everything, runs every test. Ends with CTest's summary; fails on any failure.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<USAGE
usage: tests/run.sh [--fast] [--no-install] [--help] [-- ARGUMENTS OF ctest]

  --fast        the unit set only (labels other than unit left out)
  --no-install  skip deploy/install-deps.sh
Examples: tests/run.sh -- -L sim        tests/run.sh --no-install -- -R Slopes
USAGE
}

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }

install=1
ctest_arguments=()
while [ $# -gt 0 ]; do
  case "$1" in
    --fast) ctest_arguments+=(-L unit) ;;
    --no-install) install=0 ;;
    --help|-h) usage; exit 0 ;;
    --) shift; break ;;
    *) usage >&2; printf "run.sh: unknown option '%s'\n" "$1" >&2; exit 2 ;;
  esac
  shift
done
ctest_arguments+=("$@")

[ $install = 1 ] && "$root/deploy/install-deps.sh" --tests
cd "$root"
say "building build/release with tests"
cmake --preset release -DALLOMETRY_BUILD_TESTS=ON -DALLOMETRY_BUILD_BENCH=ON >/dev/null
cmake --build --preset release
say "running the tests"
exec ctest --preset release --no-tests=error -j "$(nproc)" "${ctest_arguments[@]}"
