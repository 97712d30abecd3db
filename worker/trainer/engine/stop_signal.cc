#include "worker/trainer/engine/stop_signal.h"

#include <atomic>
#include <csignal>

namespace allometry::trainer {
namespace {

std::atomic<bool> stop_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free, "the handler may only touch lock-free state");

void OnSignal(int signal_number) {
  stop_requested.store(true);
  if (signal_number == SIGINT) std::signal(SIGINT, SIG_DFL);
}

}  // namespace

void InstallStopSignals() {
  std::signal(SIGTERM, OnSignal);
  std::signal(SIGINT, OnSignal);
  std::signal(SIGPIPE, SIG_IGN);
}

bool StopRequested() { return stop_requested.load(std::memory_order_relaxed); }

void SetStopRequested(bool requested) { stop_requested.store(requested); }

}  // namespace allometry::trainer
