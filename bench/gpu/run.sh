#!/usr/bin/env bash
# Measures on a machine with a GPU: builds allo-trainer alone, runs the tests that need a GPU, then bench/gpu/gpu.py.
#
#   bench/gpu/run.sh [--limit SECONDS] [--only ITEM...] [--trainer PROGRAM] [--study SLOTS] OUT DATA
#
# Needs PyTorch's wheel, nvcc, CMake, and DATA: what prepare.sh made, as a folder or packed as .tar.xz. Writes OUT/gpu.json, whole after
# each row, and logs beside it; with --study the study's cells instead of the items, SLOTS at once, into OUT/study; --only 5 is --study 4.
# The same command goes on where it was. Without a GPU it builds nothing and says of every item, and of the study, why it is skipped.
# --limit (840) is for all of it, the build included; --trainer takes a program that is built already, with its modules beside it.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${PYTHON:-python3}
limit=840
trainer=
study=
only=(1 2 3 4)
usage() { sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
say() { printf '==> %4d s: %s\n' "$SECONDS" "$*"; }

while [ $# -gt 0 ]; do
  case "$1" in
    --limit) limit=$2; shift ;;
    --trainer) trainer=$(realpath "$2"); shift ;;
    --study) study=$2; shift ;;
    --only) only=(); while [ $# -gt 3 ] && [[ $2 != -* ]]; do only+=("$2"); shift; done ;;
    --help|-h) usage; exit 0 ;;
    -*) usage >&2; echo "run.sh: unknown option '$1'" >&2; exit 2 ;;
    *) break ;;
  esac
  shift
done
[ $# = 2 ] || { usage >&2; exit 2; }
if [[ " ${only[*]} " = *" 5 "* ]]; then
  [ ${#only[@]} = 1 ] || { echo "run.sh: item 5 is the study, which goes without other items: --only 5, or --study SLOTS" >&2; exit 2; }
  study=${study:-4}
fi
mkdir -p "$1"
out=$(realpath "$1")
data=$2
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
export TORCHINDUCTOR_CACHE_DIR=$root/build/gpu-inductor

unpack() {
  [ -f "$data" ] || return 0
  local folder=$root/build/gpu-data
  [ -e "$folder/plan.json" ] || { mkdir -p "$folder" && tar -C "$folder" -xJf "$data" || return 1; }
  data=$folder
}

torch=$("$python" -c 'import os, torch; print(os.path.dirname(torch.__file__))' 2>/dev/null)
has_gpu() { "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; }

use_libraries() {  # what the trainer loads at run time
  local folder
  for folder in "$torch/lib" "$torch"/../nvidia/*/lib; do
    [ -d "$folder" ] && LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$(realpath "$folder")
  done
  [ -d "$data/lib" ] && LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$(realpath "$data/lib")
  export LD_LIBRARY_PATH
}

# torch.compile's code is made while the compilers run anyway, and is found by item 1.
warm_compiled() {
  "$python" -c 'import transformers' 2>/dev/null || return 0
  local size
  for size in base tiny small; do
    "$python" "$root/bench/gpu/hugging_face.py" --size $size --mode compile --steps 1 --blocks 1 --warm-up 1
  done
}

build() {
  local options=(-DALLOMETRY_BUILD_DAEMONS=OFF "-DALLOMETRY_TORCH_DIR=$torch") targets=(allo-trainer)
  [ -d "$data/deps" ] && options+=("-DCMAKE_PREFIX_PATH=$(realpath "$data/deps")" "-DOPENSSL_ROOT_DIR=$(realpath "$data/deps")")
  command -v ninja >/dev/null || options+=(-G "Unix Makefiles")
  cmake --preset trainer -S "$root" "${options[@]}" -DALLOMETRY_BUILD_TESTS=ON -DALLOMETRY_BUILD_BENCH=OFF ||
    cmake --preset trainer -S "$root" "${options[@]}" -DALLOMETRY_BUILD_TESTS=OFF -DALLOMETRY_BUILD_BENCH=OFF || return 1
  cmake --build "$root/build/trainer" --target "${targets[@]}" -j "$(nproc)" || return 1
  trainer=$root/build/trainer/allo-trainer
}

device_tests() {  # programs whose cases on a GPU are named .../Device; the same ones as .../Emulated need none
  local name program found=0
  for name in kernels_test device_ops_test; do
    [ -d "$root/build/trainer" ] && cmake --build "$root/build/trainer" --target $name -j "$(nproc)" >> "$out/build.log" 2>&1
    program=$(dirname "$trainer")/tests/$name
    [ -x "$program" ] || continue
    found=1
    timeout 120 "$program" --gtest_filter='*/Device' > "$out/$name.log" 2>&1
    say "$name: exit code $?, $(tail -1 "$out/$name.log")"
  done
  [ $found = 1 ] || say "GPU tests: not run: there are no programs tests/kernels_test, tests/device_ops_test beside the trainer"
}

cd "$root" || exit 2
unpack || { echo "run.sh: $data cannot be unpacked" >&2; exit 2; }
if has_gpu; then
  use_libraries
  if [ -z "$trainer" ]; then
    say "building allo-trainer"
    warm_compiled > "$out/compile.log" 2>&1 &
    warming=$!
    build > "$out/build.log" 2>&1 || { say "the build failed:"; tail -15 "$out/build.log"; }
    kill -TERM $warming 2>/dev/null; wait $warming 2>/dev/null
  fi
  [ -d "$data/lib" ] && [ -n "$trainer" ] && cp -n "$data"/lib/*.so* "$(dirname "$trainer")/"
  [ -n "$trainer" ] && [ -z "$study" ] && device_tests
else
  why="there is no GPU here"
  [ -n "$torch" ] || why="PyTorch is not there"
  say "$why: nothing is built, and no GPU test is run"
  [ -z "$study" ] || { say "the study: not measured: $why"; exit 0; }
fi

given=()
[ -n "$trainer" ] && given+=(--trainer "$trainer")
if [ -n "$study" ]; then
  say "the study, $study cells at once"
  "$python" bench/gpu/study.py run --plan "$data/plan.json" "${given[@]}" --data "$data/text" -o "$out/study" --slots "$study" \
    --limit $((limit - SECONDS)) --whole
  exit $?
fi
say "items ${only[*]}"
"$python" bench/gpu/gpu.py --only "${only[@]}" "${given[@]}" --data "$data/text" --curves-data "$data/curves" \
  --memory-cells "$data/memory_cells.json" --limit $((limit - SECONDS)) -o "$out/gpu.json"
status=$?
say "$out/gpu.json"
exit $status
