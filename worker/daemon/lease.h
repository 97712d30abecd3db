#pragma once

#include <cstdint>
#include <deque>
#include <optional>

namespace allometry::worker {

// The arithmetic of leases, without clocks: every `*_ms` is CLOCK_BOOTTIME milliseconds that the caller passes in.

// When to act before a lease's end, so that nothing runs after it.
struct LeaseTimings {
  int64_t ttl_ms = 300'000;
  int64_t terminate_before_ms = 0;  // SIGTERM so long before the end
  int64_t kill_before_ms = 0;       // SIGKILL so long before the end
};

// Room for the grace period where the lease is long enough for it: the kill comes a tenth of the lease (at most 5 s)
// before the end, the termination one grace period (at most a quarter of the lease) before the kill.
LeaseTimings TimingsFor(int64_t ttl_ms, int64_t grace_ms);

enum class LeaseAction { kWait, kRun, kTerminate, kKill };

// One lease as its holder may count on it: from the *sending* of the newest acknowledged message that named it, since
// the coordinator cannot have renewed it earlier. Before the first such message nothing may run (kWait).
class LeaseClock {
 public:
  void Renew(int64_t sent_ms);  // older messages change nothing
  LeaseAction ActionAt(int64_t now_ms, const LeaseTimings& timings) const;

 private:
  std::optional<int64_t> renewed_ms_;
};

// Which message was sent when, until it is acknowledged. Numbers count up; an acknowledgement covers all before it.
class SentLedger {
 public:
  void Sent(uint64_t number, int64_t sent_ms) { sent_.push_back({number, sent_ms}); }
  // When the newest message up to `number` was sent; nothing if that is already acknowledged or was never sent.
  std::optional<int64_t> Acknowledge(uint64_t number);
  size_t waiting() const { return sent_.size(); }
  // When the oldest message that waits for its acknowledgement was sent.
  std::optional<int64_t> OldestWaiting() const;

 private:
  struct Entry {
    uint64_t number;
    int64_t sent_ms;
  };
  std::deque<Entry> sent_;
};

}  // namespace allometry::worker
