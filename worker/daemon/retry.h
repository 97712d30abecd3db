#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <random>
#include <thread>

#include "common/result.h"
#include "worker/daemon/coordinator_client.h"

namespace allometry::worker {

// Growing pauses: 100 ms doubling to 10 s, each shortened by up to a half at random, so that a hundred workers do not
// come back to a restarted coordinator in step. Not thread-safe.
class Backoff {
 public:
  int64_t NextMs() {
    const int64_t full = pause_ms_;
    pause_ms_ = std::min<int64_t>(pause_ms_ * 2, 10'000);
    return full / 2 + static_cast<int64_t>(random_() % static_cast<uint64_t>(full / 2 + 1));
  }
  void Reset() { pause_ms_ = 100; }

 private:
  int64_t pause_ms_ = 100;
  std::mt19937_64 random_{std::random_device{}()};
};

// Sleeps in small pieces; false as soon as `alive` is.
inline bool SleepWhile(int64_t ms, const std::function<bool()>& alive) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(ms);
  while (alive() && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  return alive();
}

// Calls again while the error is one that may pass and `alive` holds; returns the last answer.
template <typename Call>
auto RetryWhile(const std::function<bool()>& alive, Call call) -> decltype(call()) {
  Backoff backoff;
  for (;;) {
    auto answer = call();
    if (answer.ok() || !WorthRetrying(answer.error()) || !SleepWhile(backoff.NextMs(), alive)) return answer;
  }
}

}  // namespace allometry::worker
