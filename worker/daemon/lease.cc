#include "worker/daemon/lease.h"

#include <algorithm>

namespace allometry::worker {

LeaseTimings TimingsFor(int64_t ttl_ms, int64_t grace_ms) {
  LeaseTimings timings;
  timings.ttl_ms = ttl_ms;
  timings.kill_before_ms = std::min<int64_t>(5'000, ttl_ms / 10);
  timings.terminate_before_ms = timings.kill_before_ms + std::min(grace_ms, ttl_ms / 4);
  return timings;
}

void LeaseClock::Renew(int64_t sent_ms) { renewed_ms_ = std::max(renewed_ms_.value_or(sent_ms), sent_ms); }

LeaseAction LeaseClock::ActionAt(int64_t now_ms, const LeaseTimings& timings) const {
  if (!renewed_ms_) return LeaseAction::kWait;
  const int64_t end_ms = *renewed_ms_ + timings.ttl_ms;
  if (now_ms >= end_ms - timings.kill_before_ms) return LeaseAction::kKill;
  if (now_ms >= end_ms - timings.terminate_before_ms) return LeaseAction::kTerminate;
  return LeaseAction::kRun;
}

std::optional<int64_t> SentLedger::Acknowledge(uint64_t number) {
  std::optional<int64_t> newest;
  while (!sent_.empty() && sent_.front().number <= number) {
    newest = sent_.front().sent_ms;
    sent_.pop_front();
  }
  return newest;
}

std::optional<int64_t> SentLedger::OldestWaiting() const {
  if (sent_.empty()) return std::nullopt;
  return sent_.front().sent_ms;
}

}  // namespace allometry::worker
