#include "coordinator/grid/sweep_file.h"

#include <algorithm>

#include "common/files.h"
#include "coordinator/grid/check.h"
#include "coordinator/grid/yaml_message.h"

namespace allometry::coordinator {
namespace {

common::Error Joined(std::string_view file, std::vector<YamlProblem> problems) {
  std::ranges::stable_sort(problems, {}, &YamlProblem::line);
  std::string text;
  for (const YamlProblem& problem : problems) {
    if (!text.empty()) text += '\n';
    text += std::string(file) + ":" + std::to_string(problem.line) + ": " + problem.message;
  }
  return common::InvalidArgument(text);
}

}  // namespace

common::Result<v1::SweepSpec> ParseSweep(std::string_view yaml, std::string_view file) {
  v1::SweepSpec spec;
  YamlReading reading = ReadYamlMessage(yaml, &spec);
  // What the file says wrongly may be missing from the message: then only the fields that were read are checked.
  const bool complete = reading.problems.empty();
  for (SpecProblem& problem : complete ? CheckSpec(spec) : CheckFields(spec))
    reading.problems.push_back({LineOf(reading.lines, problem.path), std::move(problem.message)});
  if (!reading.problems.empty()) return Joined(file, std::move(reading.problems));
  return spec;
}

common::Result<v1::SweepSpec> ReadSweepFile(const std::filesystem::path& path) {
  ALLO_ASSIGN_OR_RETURN(const std::string text, common::ReadFile(path));
  return ParseSweep(text, path.string());
}

}  // namespace allometry::coordinator
