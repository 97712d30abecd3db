#include "common/program_output.h"

#include <sys/wait.h>

#include <array>
#include <cstdio>

namespace allometry::common {
namespace {

std::string Quoted(const std::string& word) {
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

}  // namespace

ProgramOutput RunAndRead(const std::vector<std::string>& command, bool errors_too) {
  std::string line;
  for (const std::string& word : command) line += Quoted(word) + " ";
  FILE* pipe = popen((line + (errors_too ? "2>&1" : "")).c_str(), "r");
  if (!pipe) return {"", -1};
  ProgramOutput output;
  std::array<char, 4096> buffer{};
  while (const size_t got = fread(buffer.data(), 1, buffer.size(), pipe)) output.text.append(buffer.data(), got);
  const int status = pclose(pipe);
  output.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return output;
}

}  // namespace allometry::common
