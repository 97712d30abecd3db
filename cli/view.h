#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "cli/client.h"
#include "cli/progress.h"

namespace allometry::cli {

// Shows a sweep while it runs: redrawn in place on a terminal, else a line per change and totals now and then.
class ProgressView {
 public:
  virtual ~ProgressView() = default;
  virtual void Event(const std::string& line) = 0;    // something happened to a cell
  virtual void Update(const Progress& progress) = 0;  // called a few times a second
  virtual void Close() = 0;                           // leaves the last state on the screen

  // For standard output as it is.
  static std::unique_ptr<ProgressView> ForStandardOutput();
};

// How watching a sweep ended.
enum class WatchEnd { kSucceeded, kWithFailures, kCancelled, kInterrupted };

// Follows the sweep until it ends or `interrupted` says so. kNotFound: no such sweep; kUnavailable: the coordinator is
// gone.
common::Result<WatchEnd> WatchSweep(Client& client, const std::string& sweep, ProgressView& view,
                                    const std::function<bool()>& interrupted);

// The exit code of a verb that waited for a sweep.
int ExitCodeOf(WatchEnd end);

}  // namespace allometry::cli
