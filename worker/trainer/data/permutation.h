#pragma once

#include <cstdint>

namespace allometry::trainer {

// A seeded permutation of 0 … size-1 that needs no memory: a Feistel network over the next power of four, walked until
// it lands inside (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). Thread-safe.
class Permutation {
 public:
  // size in [1, 2^62].
  Permutation(uint64_t size, uint64_t key);
  // Where `index` (< size) goes.
  uint64_t operator()(uint64_t index) const;

 private:
  uint64_t Shuffle(uint64_t index) const;
  uint64_t size_, key_, mask_;
  int half_bits_;
};

}  // namespace allometry::trainer
