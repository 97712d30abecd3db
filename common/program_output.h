#pragma once

#include <string>
#include <vector>

namespace allometry::common {

// What a program wrote to standard output, and how it ended.
struct ProgramOutput {
  std::string text;
  int exit_code = 0;  // -1: it could not be run or was killed
};

// Runs a command, word by word as given, to its end. With `errors_too` what it writes to standard error is in the text;
// otherwise it goes where this program's goes.
ProgramOutput RunAndRead(const std::vector<std::string>& command, bool errors_too);

}  // namespace allometry::common
