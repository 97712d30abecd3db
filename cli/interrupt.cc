#include "cli/interrupt.h"

#include <atomic>
#include <csignal>

namespace allometry::cli {
namespace {

std::atomic<int> interrupts{0};
static_assert(std::atomic<int>::is_always_lock_free, "signal handlers may touch nothing else");

void Count(int) { interrupts.fetch_add(1, std::memory_order_relaxed); }

}  // namespace

void CountInterrupts() {
  struct sigaction action {};
  action.sa_handler = Count;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

int InterruptCount() { return interrupts.load(std::memory_order_relaxed); }

}  // namespace allometry::cli
