#include "cli/view.h"

#include <unistd.h>

#include <iostream>

#include "cli/output.h"
#include "cli/verb.h"
#include "cli/watcher.h"

namespace allometry::cli {
namespace {

using std::chrono::steady_clock;

constexpr auto kRedrawInterval = std::chrono::milliseconds(200);
constexpr double kTotalsEverySeconds = 30;
constexpr int kMaxBars = 16;

class Stopwatch {
 public:
  double Seconds() const { return std::chrono::duration<double>(steady_clock::now() - start_).count(); }

 private:
  steady_clock::time_point start_ = steady_clock::now();
};

// Draws over its own last lines. Events scroll away above them.
class TerminalView final : public ProgressView {
 public:
  void Event(const std::string& line) override {
    Erase();
    std::cout << line << '\n';
  }

  void Update(const Progress& progress) override {
    Erase();
    for (const std::string& line : progress.Lines(watch_.Seconds(), TerminalWidth(), kMaxBars)) {
      std::cout << line << '\n';
      ++drawn_;
    }
    std::cout << std::flush;
  }

  void Close() override { drawn_ = 0; }

 private:
  // Up over what was drawn, and everything from there to the end of the screen away.
  void Erase() {
    if (drawn_ > 0) std::cout << "\x1b[" << drawn_ << "A\r\x1b[J";
    drawn_ = 0;
  }

  Stopwatch watch_;
  int drawn_ = 0;
};

class LineView final : public ProgressView {
 public:
  void Event(const std::string& line) override {
    std::cout << "[" << FormatDuration(watch_.Seconds()) << "] " << line << std::endl;
  }

  void Update(const Progress& progress) override {
    if (progress.sweep().cells() == 0 || watch_.Seconds() < next_totals_) return;
    next_totals_ = watch_.Seconds() + kTotalsEverySeconds;
    Event(progress.sweep().name() + ": " + progress.Totals());
  }

  void Close() override {}

 private:
  Stopwatch watch_;
  double next_totals_ = 0;
};

WatchEnd EndOf(const Progress& progress) {
  if (progress.sweep().state() == v1::SWEEP_STATE_CANCELLED) return WatchEnd::kCancelled;
  return progress.Succeeded() ? WatchEnd::kSucceeded : WatchEnd::kWithFailures;
}

}  // namespace

std::unique_ptr<ProgressView> ProgressView::ForStandardOutput() {
  if (IsTerminal(STDOUT_FILENO)) return std::make_unique<TerminalView>();
  return std::make_unique<LineView>();
}

common::Result<WatchEnd> WatchSweep(Client& client, const std::string& sweep, ProgressView& view,
                                    const std::function<bool()>& interrupted) {
  SweepWatcher watcher(client, sweep);
  Progress progress;
  while (!interrupted()) {
    const WatchChanges changes = watcher.Take(kRedrawInterval);
    for (const v1::CellStatus& cell : changes.cells)
      if (const auto line = progress.Apply(cell)) view.Event(*line);
    if (changes.sweep) progress.Apply(*changes.sweep);
    if (!changes.notice.empty()) view.Event(changes.notice);
    view.Update(progress);
    if (changes.ended) {
      view.Close();
      return *changes.ended;
    }
    if (progress.Ended()) {
      view.Close();
      return EndOf(progress);
    }
  }
  view.Close();
  return WatchEnd::kInterrupted;
}

int ExitCodeOf(WatchEnd end) {
  switch (end) {
    case WatchEnd::kSucceeded:
      return kExitOk;
    case WatchEnd::kInterrupted:
      return kExitInterrupted;
    default:
      return kExitRunsFailed;
  }
}

}  // namespace allometry::cli
