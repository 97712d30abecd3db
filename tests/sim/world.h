#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <utility>

namespace allometry::sim {

// Time, chance and the queue of what happens next. Everything that the simulation does comes out of the seed.
class World {
 public:
  explicit World(uint64_t seed) : random_(seed) {}

  int64_t now_ms() const { return now_ms_; }
  void After(int64_t delay_ms, std::function<void()> happen) {
    queue_[{now_ms_ + delay_ms, next_++}] = std::move(happen);
  }
  // False when nothing is left to happen.
  bool Step() {
    if (queue_.empty()) return false;
    auto next = queue_.extract(queue_.begin());
    now_ms_ = next.key().first;
    next.mapped()();
    return true;
  }

  bool Chance(double probability) { return static_cast<double>(random_() >> 11) * 0x1p-53 < probability; }
  // A fault happens only while faults do.
  bool Fault(double probability) { return faults_ && Chance(probability); }
  int64_t Between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random_() % static_cast<uint64_t>(high - low + 1));
  }
  std::string Uuid() { return std::to_string(random_()); }

  void EndFaults() { faults_ = false; }
  bool faults() const { return faults_; }

  void Violate(const std::string& what) {
    if (violation_.empty()) violation_ = "at " + std::to_string(now_ms_) + " ms: " + what;
  }
  const std::string& violation() const { return violation_; }

 private:
  std::mt19937_64 random_;
  int64_t now_ms_ = 1'000;
  uint64_t next_ = 0;
  bool faults_ = true;
  std::string violation_;
  std::map<std::pair<int64_t, uint64_t>, std::function<void()>> queue_;
};

}  // namespace allometry::sim
