#pragma once

#include <cstdint>

namespace allometry::trainer {

// Random numbers as a pure function of a key: no state to save, so a resumed or re-sharded run sees the same draws.
// The mixing function is splitmix64's finaliser (Steele, Lea and Flood 2014, doi 10.1145/2660193.2660195).
inline uint64_t Mix64(uint64_t z) {
  z += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// The stream of draws that belongs to (seed, step, row).
class KeyedRandom {
 public:
  KeyedRandom(uint64_t seed, uint64_t step, uint64_t row) : state_(Mix64(Mix64(Mix64(seed) ^ step) ^ row)) {}

  uint64_t Next() { return Mix64(state_++); }

  // Uniform in [0, bound), bound >= 1, without bias (Lemire 2019, arXiv 1805.10941).
  uint32_t Below(uint32_t bound) {
    uint64_t product = (Next() >> 32) * bound;
    if (static_cast<uint32_t>(product) < bound) {
      const uint32_t threshold = -bound % bound;
      while (static_cast<uint32_t>(product) < threshold) product = (Next() >> 32) * bound;
    }
    return static_cast<uint32_t>(product >> 32);
  }

 private:
  uint64_t state_;
};

}  // namespace allometry::trainer
