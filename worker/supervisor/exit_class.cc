#include "worker/supervisor/exit_class.h"

#include <csignal>

namespace allometry::worker {
namespace {

bool DiedOfStopSignal(const ProcessEnd& end) {
  auto is_stop = [](int signal) { return signal == SIGTERM || signal == SIGKILL || signal == SIGINT; };
  // A shell around the trainer reports its signal as 128 + number.
  return is_stop(end.signal) || (end.exit_code > 128 && is_stop(end.exit_code - 128));
}

std::string WhatHappened(const ProcessEnd& end, bool has_result) {
  if (end.cause == StopCause::kTimeLimit) return "stopped at its time limit";
  if (end.cause == StopCause::kMemoryLimit) return "killed at its memory limit";
  if (end.signal != 0) return "ended by signal " + std::to_string(end.signal);
  if (end.exit_code == 0 && !has_result) return "exit code 0 without a result event";
  return "exit code " + std::to_string(end.exit_code);
}

}  // namespace

const char* ExitClassName(ExitClass exit_class) {
  switch (exit_class) {
    case ExitClass::kDone:
      return "done";
    case ExitClass::kStopped:
      return "stopped";
    case ExitClass::kConfigError:
      return "configuration error";
    case ExitClass::kDataError:
      return "data error";
    case ExitClass::kDiverged:
      return "diverged";
    case ExitClass::kOutOfMemory:
      return "out of memory";
    case ExitClass::kPeerLost:
      return "peer lost";
    case ExitClass::kCrash:
      return "crash";
    case ExitClass::kLimit:
      return "limit";
  }
  return "unknown";
}

ExitClass Classify(const ProcessEnd& end, bool has_result) {
  if (end.exit_code == 0 && has_result) return ExitClass::kDone;
  if (end.cause == StopCause::kTimeLimit || end.cause == StopCause::kMemoryLimit) return ExitClass::kLimit;
  switch (end.exit_code) {
    case 40:
      return ExitClass::kStopped;
    case 42:
      return ExitClass::kConfigError;
    case 43:
      return ExitClass::kDataError;
    case 44:
      return ExitClass::kDiverged;
    case 45:
      return ExitClass::kOutOfMemory;
    case 46:
      return ExitClass::kPeerLost;
    default:
      break;
  }
  if (end.cause == StopCause::kRequest && DiedOfStopSignal(end)) return ExitClass::kStopped;
  return ExitClass::kCrash;
}

std::string DescribeEnd(const ProcessEnd& end, bool has_result) {
  std::string text = WhatHappened(end, has_result);
  if (!end.stderr_tail.empty()) text += "\n" + end.stderr_tail;
  return text;
}

}  // namespace allometry::worker
