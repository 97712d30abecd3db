#include "worker/trainer/engine/stop_signal.h"

#include <unistd.h>

#include <atomic>
#include <csignal>

#include "worker/trainer/engine/exit_code.h"

namespace allometry::trainer {
namespace {

std::atomic<bool> stop_requested{false}, stop_at_once{false};
static_assert(std::atomic<bool>::is_always_lock_free, "the handler may only touch lock-free state");

void OnSignal(int signal_number) {
  if (stop_at_once.load()) _exit(static_cast<int>(ExitCode::kStopped));
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

void SetStopAtOnce(bool at_once) { stop_at_once.store(at_once); }

void SetStopRequested(bool requested) { stop_requested.store(requested); }

}  // namespace allometry::trainer
