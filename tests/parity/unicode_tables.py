"""Writes worker/trainer/tasks/unicode_tables.h to standard output: which characters Python's \\w matches and what its
str.lower makes of each, from the Unicode version of the Python that runs this. The checked-in file is Python 3.11's."""

import unicodedata

HEADER = """#pragma once

#include <cstdint>

// Characters beyond ASCII as Python's str.isalnum and str.lower know them, from Unicode {version}. Written by
// tests/parity/unicode_tables.py; not meant to be edited.
namespace allometry::trainer {{

// Every step-th character from first to last has its lower case delta further on. In ascending order.
struct LowerCaseRun {{
  char32_t first, last;
  int32_t step, delta;
}};
inline constexpr LowerCaseRun kLowerCaseRuns[] = {{
"""


def characters():
    return (chr(c) for c in range(0x80, 0x110000) if not 0xD800 <= c <= 0xDFFF)


def lower_case_runs():
    runs = []
    for character in characters():
        lower = character.lower()
        if lower == character or len(lower) > 1:
            continue
        code, delta = ord(character), ord(lower) - ord(character)
        if runs and runs[-1][3] == delta:
            first, last, step, _ = runs[-1]
            if code - last == step or (first == last and code - last <= 2):
                runs[-1] = (first, code, code - last, delta)
                continue
        runs.append((code, code, 1, delta))
    return runs


def word_boundaries():
    """Where word characters begin and end, by turns."""
    boundaries, inside = [], False
    for character in characters():
        if character.isalnum() != inside:
            inside = not inside
            boundaries.append(ord(character))
    return boundaries


def lines(items, width=120):
    line = "   "
    for item in items:
        if len(line) + 2 + len(item) > width:
            yield line
            line = "   "
        line += f" {item},"
    yield line


def main():
    print(HEADER.format(version=unicodedata.unidata_version), end="")
    runs = (f"{{0x{first:X}, 0x{last:X}, {step}, {delta}}}" for first, last, step, delta in lower_case_runs())
    print("\n".join(lines(runs)))
    print("};\n\n// Where word characters begin and end, by turns: an odd number of these is at or below each.")
    print("inline constexpr char32_t kWordBoundaries[] = {")
    print("\n".join(lines(f"0x{boundary:X}" for boundary in word_boundaries())))
    print("};\n\n}  // namespace allometry::trainer")


if __name__ == "__main__":
    main()
