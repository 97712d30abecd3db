#!/usr/bin/env bash
# What a machine with a GPU and nothing else needs to measure: made where `allo` and its trainer are built.
#
#   bench/gpu/prepare.sh --build build/release --data-root DIR OUT
#   tar -C OUT -cJf data.tar.xz .        # half the size, for the way there
#
# OUT gets text/ (the study's, under 50 MB), curves/ (item 4's), plan.json, memory_cells.json, lib/ (SentencePiece, for the trainer), and
# deps/ (headers and libraries that building the trainer and its GPU tests takes, where the machine has none).
# DIR holds text/wikipedia-en-2015/ and tokenizer/wiki-32k/.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$root/build/release
data_root=$root/../shared/data
usage() { sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
die() { printf 'prepare.sh: %s\n' "$*" >&2; exit 2; }

while [ $# -gt 0 ]; do
  case "$1" in
    --build) build=$2; shift ;;
    --data-root) data_root=$2; shift ;;
    --help|-h) usage; exit 0 ;;
    -*) die "unknown option '$1'" ;;
    *) break ;;
  esac
  shift
done
[ $# = 1 ] || { usage >&2; exit 2; }
out=$1
mkdir -p "$out/lib"
[ -x "$build/allo" ] && [ -x "$build/allo-trainer" ] || die "there are no allo and allo-trainer in $build: build the release preset"

"$build/allo" plan "$root/examples/one_gpu_study.yaml" --data-root "$data_root" --offline --format json > "$out/plan.json"
python3 "$root/bench/gpu/memory_cells.py" --allo "$build/allo" -o "$out/memory_cells.json"
[ -e "$out/text/data.json" ] ||
  python3 "$root/bench/gpu/study.py" prepare --plan "$out/plan.json" --trainer "$build/allo-trainer" --data-root "$data_root" -o "$out/text"

# Item 4's models have seconds on a CPU: a small vocabulary, and the first 1.5 MB of the validation text.
if [ ! -e "$out/curves/data.json" ]; then
  xz -dc "$data_root/text/wikipedia-en-2015/valid.txt.xz" 2>/dev/null | head -c 1500000 > "$out/small.txt" || true
  "$build/allo-trainer" data build --in "$out/small.txt" --format text --vocabulary 1000 --validation-fraction 0.1 --out "$out/curves"
  rm "$out/small.txt"
fi

module=$build/liballometry-sentencepiece.so
cp "$module" "$out/lib/"
ldd "$module" | awk '/sentencepiece|protobuf/ {print $3}' | while read -r library; do cp -L "$library" "$out/lib/"; done

copy() {  # pattern of files below /, folder of deps
  local file
  mkdir -p "$out/deps/$2"
  for file in $1; do [ -e "$file" ] && cp -rL "$file" "$out/deps/$2/"; done
  return 0
}
machine=$(gcc -dumpmachine)
copy "/usr/include/nlohmann /usr/include/openssl /usr/include/gtest /usr/include/gmock" include
copy "/usr/include/$machine/openssl/*" include/openssl
copy "/usr/include/zlib.h /usr/include/zconf.h /usr/include/$machine/zconf.h /usr/include/lzma.h /usr/include/lzma /usr/include/zstd*.h" include
copy "/usr/share/cmake/nlohmann_json" share/cmake
for name in crypto z lzma zstd; do copy "/usr/lib/$machine/lib$name.so" lib; done
copy "/usr/lib/$machine/libg*test*.a /usr/lib/$machine/libgmock*.a" lib

du -sh "$out"/*
