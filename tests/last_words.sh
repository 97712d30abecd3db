#!/usr/bin/env bash
# last_words.sh BUILD: the last lines of each test that failed in CTest's last run there, so that a log ends with the reasons.
set -euo pipefail
awk -v most=8 '
  / Testing: / { name = $0; sub(/^[^:]*Testing: /, "", name); lines = 0 }
  /^<end of output>$/ { inside = 0 }
  inside && NF { text[lines++] = substr($0, 1, 300) }
  /^-+$/ && after_output { inside = 1 }
  { after_output = $0 == "Output:" }
  /^Test (Failed|Timeout)|^Unable to find executable/ {
    print "==> " name ":"
    for (i = lines > most ? lines - most : 0; i < lines; ++i) print "    " text[i]
  }
' "${1:?the build folder}/Testing/Temporary/LastTest.log"
