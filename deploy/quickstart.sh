#!/usr/bin/env bash
# From a fresh Debian 12 to a first scaling study: installs what is missing, builds, runs examples/quickstart.yaml.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<USAGE
usage: deploy/quickstart.sh [--build-only] [--help] [-- ARGUMENTS OF 'allo run']

Installs what is missing (deploy/install-deps.sh), builds the release preset into build/release, and runs
examples/quickstart.yaml on this machine. Can be run again at any time: what is done is not done again, and a sweep
that was interrupted goes on where it stopped.

  --build-only  stop after the build
USAGE
}

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }

build_only=0
while [ $# -gt 0 ]; do
  case "$1" in
    --build-only) build_only=1 ;;
    --help|-h) usage; exit 0 ;;
    --) shift; break ;;
    *) usage >&2; printf "quickstart: unknown option '%s'\n" "$1" >&2; exit 2 ;;
  esac
  shift
done

"$root/deploy/install-deps.sh"
say "building build/release"
cd "$root"
cmake --preset release -DALLOMETRY_BUILD_TESTS=OFF -DALLOMETRY_BUILD_BENCH=OFF >/dev/null
cmake --build --preset release
[ $build_only = 1 ] && { say "built: build/release/allo, build/release/allo-trainer"; exit 0; }
say "allo run examples/quickstart.yaml"
exec build/release/allo run examples/quickstart.yaml "$@"
