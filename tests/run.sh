#!/usr/bin/env bash
# Installs what is missing, builds everything, runs every test. Ends with CTest's summary and the last lines of what failed.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<USAGE
usage: tests/run.sh [--fast] [--no-install] [--no-sanitizers] [--help] [-- ARGUMENTS OF ctest]

  --fast           the unit set only: no end-to-end, simulation or parity tests, no sanitizers
  --no-sanitizers  leave out the builds with ASan + UBSan (unit and simulation) and TSan (what has threads)
  --no-install     skip deploy/install-deps.sh
Examples: tests/run.sh --no-sanitizers -- -L sim        tests/run.sh --fast --no-install -- -R Slopes
USAGE
}

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }

install=1
sanitizers=1
ctest_arguments=()
while [ $# -gt 0 ]; do
  case "$1" in
    --fast) ctest_arguments+=(-L unit); sanitizers=0 ;;
    --no-sanitizers) sanitizers=0 ;;
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

run_tests() {  # preset, arguments of ctest
  local preset=$1 status=0
  shift
  ctest --preset "$preset" --no-tests=error -j "$(nproc)" "$@" || status=$?
  [ $status = 0 ] || tests/last_words.sh "build/$preset"
  return $status
}

sanitize() {  # preset, what it is
  say "building build/$1: $2"
  cmake --preset "$1" -DALLOMETRY_BUILD_TESTS=ON >/dev/null
  cmake --build --preset "$1"
  say "running the tests of build/$1"
  run_tests "$1"
}

say "building build/release with tests"
# What the sanitizers' builds test is not tested a second time here.
daemon_tests=ON
[ $sanitizers = 1 ] && daemon_tests=OFF
cmake --preset release -DALLOMETRY_BUILD_TESTS=ON -DALLOMETRY_BUILD_BENCH=ON -DALLOMETRY_DAEMON_TESTS=$daemon_tests >/dev/null
cmake --build --preset release
if [ $sanitizers = 1 ]; then
  sanitize asan "address and undefined-behaviour sanitizers"
  sanitize tsan "thread sanitizer"
fi
say "running the tests"
run_tests release "${ctest_arguments[@]}"
