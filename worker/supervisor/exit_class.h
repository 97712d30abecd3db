#pragma once

#include <cstdint>
#include <string>

namespace allometry::worker {

// How a trainer ended, by the closed list of docs/trainer-contract.md. The daemon maps it onto FinishRequest.Outcome.
enum class ExitClass {
  kDone,
  kStopped,
  kConfigError,
  kDataError,
  kDiverged,
  kOutOfMemory,
  kPeerLost,
  kDeviceLost,
  kDeviceFull,
  kDriverTooOld,
  kCollectiveTimeout,
  kCrash,
  kLimit
};

const char* ExitClassName(ExitClass exit_class);

// Why the supervisor signalled a trainer. The first cause stays.
enum class StopCause { kNone, kRequest, kTimeLimit, kMemoryLimit };

// The end of a trainer process.
struct ProcessEnd {
  int exit_code = -1;  // -1 when a signal ended it
  int signal = 0;      // 0 when it exited
  StopCause cause = StopCause::kNone;
  double seconds = 0;          // from start to end, CLOCK_MONOTONIC
  int64_t peak_rss_bytes = 0;  // of the whole process group, sampled; 0 for runs shorter than one sample
  std::string stderr_tail;     // last lines of standard error, at most 4 KiB
};

// What an error text of CUDA, PyTorch or NCCL says of the device: kDeviceLost, kDeviceFull or kDriverTooOld; kCrash
// where it says nothing of it. For trainers that let an exception end them, in whatever language.
ExitClass ClassifyText(const std::string& text);

// The line of it that says so, or else its last one; at most 200 bytes.
std::string TellingLine(const std::string& text);

// `has_result`: the event file holds a `result` event. A finished result wins over a limit that fired meanwhile; a
// trainer without a SIGTERM handler that dies of our signal was stopped, it did not crash. What would be a crash is
// looked at by its last words (ClassifyText).
ExitClass Classify(const ProcessEnd& end, bool has_result);

// One sentence for people: "exit code 3", "killed by signal 9", "time limit reached", with what to do about a device
// and the last stderr lines behind.
std::string DescribeEnd(const ProcessEnd& end, bool has_result);

}  // namespace allometry::worker
