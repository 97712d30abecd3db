#!/usr/bin/env bash
# Installs what Allometry needs to build and run on Debian 12: system packages, and in a virtual environment LibTorch's
# wheel and the one that draws a report's figures. Safe to run again: what is there already is left alone.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
deps=${ALLOMETRY_DEPS:-$root/.deps}
with_tests=0
with_trainer=1

usage() {
  cat <<USAGE
usage: deploy/install-deps.sh [--tests] [--no-trainer] [--help]

Installs Debian packages (with root or sudo), and from PyPI LibTorch (torch==$torch_version) and what draws reports
(vl-convert-python) into \$ALLOMETRY_DEPS (default: .deps beside this checkout).

  --tests       also what the test suite needs (GoogleTest, pytest, grpcio, transformers, scikit-learn)
  --no-trainer  leave LibTorch out: enough for coordinators and for worker machines that bring their own trainer
  --help        this text
USAGE
}

torch_version=2.11.0
build_packages=(build-essential cmake ninja-build ccache mold git pkg-config ca-certificates
  libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc libsqlite3-dev libboost1.81-dev
  libyaml-cpp-dev libcli11-dev nlohmann-json3-dev libspdlog-dev libfmt-dev libeigen3-dev libssl-dev
  libsentencepiece-dev liblzma-dev zlib1g-dev libzstd-dev)
run_packages=(dict-gcide wordnet-base python3 python3-venv)
# Draws the figures of reports.
run_wheels=("vl-convert-python==1.9.0.post1")
test_packages=(libgtest-dev libgmock-dev libbenchmark-dev sqlite3 sentencepiece)
# One line a package, so that a failing one can be named.
test_wheels=("numpy==2.3.5" "pytest==9.0.1" "grpcio==1.76.0" "grpcio-tools==1.76.0" "grpcio-health-checking==1.76.0"
  "grpcio-reflection==1.76.0" "transformers==4.57.3" "safetensors==0.7.0" "scipy==1.16.3" "scikit-learn==1.7.2")

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
die() { printf 'install-deps: %s\n' "$*" >&2; exit 1; }

while [ $# -gt 0 ]; do
  case "$1" in
    --tests) with_tests=1 ;;
    --no-trainer) with_trainer=0 ;;
    --help|-h) usage; exit 0 ;;
    *) usage >&2; die "unknown option '$1'" ;;
  esac
  shift
done

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "root is needed to install: $* (no sudo on this machine; run this as root once)"
  fi
}

install_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && { say "Debian packages: all there"; return; }
  command -v apt-get >/dev/null || die "apt-get is missing: on this system install the counterparts of: ${missing[*]}"
  say "Debian packages: installing ${missing[*]}"
  as_root apt-get update -qq || die "apt-get update failed: is a Debian mirror reachable?"
  for package in "${missing[@]}"; do
    apt-cache show "$package" >/dev/null 2>&1 || die "package '$package' is not in this system's package lists"
  done
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null \
    || die "apt-get install failed; the lines above name the package"
}

install_wheels() {
  local marker wheel
  [ -x "$deps/bin/python" ] || {
    say "virtual environment: $deps"
    local python=python3
    [ -x /usr/bin/python3 ] && python=/usr/bin/python3
    "$python" -m venv "$deps" || die "cannot make a virtual environment in $deps (python3-venv missing, or no space?)"
  }
  for wheel in "$@"; do
    marker="$deps/.installed-${wheel//[^A-Za-z0-9.]/-}"
    [ -e "$marker" ] && continue
    say "wheel: $wheel"
    "$deps/bin/python" -m pip install --quiet --disable-pip-version-check "$wheel" \
      || die "pip could not install '$wheel' into $deps (network, disk space, or Python version: 3.9 to 3.13 are known to work)"
    touch "$marker"
  done
}

packages=("${build_packages[@]}" "${run_packages[@]}")
[ $with_tests = 1 ] && packages+=("${test_packages[@]}")
install_packages "${packages[@]}"
install_wheels "${run_wheels[@]}"
[ $with_trainer = 1 ] && install_wheels "torch==$torch_version"
[ $with_tests = 1 ] && install_wheels "${test_wheels[@]}"
say "dependencies are in place"
