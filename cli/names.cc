#include "cli/names.h"

#include <algorithm>
#include <vector>

#include "common/ids.h"

namespace allometry::cli {
namespace {

// "RUN_STATE_DONE" without the prefix, in lower case; empty for UNSPECIFIED.
std::string Lower(const std::string& name, size_t prefix) {
  std::string text = name.substr(std::min(prefix, name.size()));
  std::ranges::transform(text, text.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text == "unspecified" ? "" : text;
}

}  // namespace

std::string KindName(v1::RunKind kind) { return Lower(v1::RunKind_Name(kind), 9); }
std::string StateName(v1::RunState state) { return Lower(v1::RunState_Name(state), 10); }
std::string ReasonName(v1::WaitReason reason) { return Lower(v1::WaitReason_Name(reason), 12); }
std::string SweepStateName(v1::SweepState state) { return Lower(v1::SweepState_Name(state), 12); }

common::Result<v1::RunState> ParseState(const std::string& name) {
  std::vector<std::string> names;
  for (int i = v1::RUN_STATE_PENDING; i <= v1::RUN_STATE_DIVERGED; ++i) {
    names.push_back(StateName(static_cast<v1::RunState>(i)));
    if (names.back() == name) return static_cast<v1::RunState>(i);
  }
  std::string text = "no state is called '" + name + "'; there are";
  for (const std::string& known : names) text += " " + known;
  const std::string near = common::NearestName(name, names);
  return common::InvalidArgument(near.empty() ? text : text + "; did you mean '" + near + "'?");
}

std::string ReasonText(v1::WaitReason reason) {
  switch (reason) {
    case v1::WAIT_REASON_READY:
      return "for a free slot";
    case v1::WAIT_REASON_PARENT_PENDING:
      return "for the runs they build on";
    case v1::WAIT_REASON_BLOCKED:
      return "for nothing: a run they build on failed";
    case v1::WAIT_REASON_OVER_BUDGET:
      return "because the FLOP budget is used up";
    case v1::WAIT_REASON_NO_FITTING_WORKER:
      return "for a worker that can run them";
    case v1::WAIT_REASON_BACKOFF:
      return "for their next try after a crash";
    case v1::WAIT_REASON_PAUSED:
      return "because the sweep is paused";
    case v1::WAIT_REASON_CANCELLED:
      return "for nothing: cancelled";
    default:
      return "for a reason unknown to this version";
  }
}

}  // namespace allometry::cli
