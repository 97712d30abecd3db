#include "worker/trainer/data/permutation.h"

#include "worker/trainer/data/random.h"

namespace allometry::trainer {

namespace {
constexpr int kRounds = 6;
}

Permutation::Permutation(uint64_t size, uint64_t key) : size_(size), key_(Mix64(key)), half_bits_(1) {
  while (half_bits_ < 31 && (uint64_t{1} << (2 * half_bits_)) < size) ++half_bits_;
  mask_ = (uint64_t{1} << half_bits_) - 1;
}

uint64_t Permutation::Shuffle(uint64_t index) const {
  uint64_t left = index >> half_bits_, right = index & mask_;
  for (uint64_t round = 0; round < kRounds; ++round) {
    const uint64_t next = left ^ (Mix64(key_ ^ (round << 56) ^ right) & mask_);
    left = right;
    right = next;
  }
  return (left << half_bits_) | right;
}

uint64_t Permutation::operator()(uint64_t index) const {
  do index = Shuffle(index);
  while (index >= size_);
  return index;
}

}  // namespace allometry::trainer
