#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "worker/trainer/data/prepare.h"

namespace allometry::trainer {

// One line of at most 79 columns: stage, share done, MB/s (of text where there is any, else of files), tokens/s, time
// left. `seconds`: since the stage was at `first_done`.
std::string ProgressLine(const PrepareProgress& progress, double seconds, int64_t first_done);

// Shows on standard error how a build goes: on a terminal one line that is drawn again, else a line a stage and one
// every ten seconds. Not thread-safe.
class BuildProgress {
 public:
  explicit BuildProgress(bool terminal) : terminal_(terminal) {}
  ~BuildProgress();
  BuildProgress(const BuildProgress&) = delete;
  bool operator()(const PrepareProgress& progress);

 private:
  using Clock = std::chrono::steady_clock;
  void Show(const PrepareProgress& progress);
  void EndLine();

  const bool terminal_;
  std::string stage_;
  int64_t first_done_ = 0;
  bool open_line_ = false;
  Clock::time_point began_, shown_;
};

}  // namespace allometry::trainer
