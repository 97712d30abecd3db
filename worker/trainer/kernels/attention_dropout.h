#pragma once

#include <cstdint>

// Which probabilities of an attention dropout keeps: a pure function of (seed, layer, example, head, query, key), so
// that the backward pass draws again what the forward pass drew, and N devices draw what one would.
namespace allometry::trainer::kernels {

#ifdef __CUDACC__
#define ALLO_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define ALLO_HOST_DEVICE inline
#endif

struct AttentionDropout {
  // On the device, where it changes from step to step of one captured graph. Null: no dropout.
  const uint64_t* seed = nullptr;
  uint64_t layer = 0;         // tells apart the attentions that share a seed
  int64_t first_example = 0;  // the batch's first in the whole step's
  uint32_t rate = 0;          // in 65536ths, below 65536: see DropoutRate
};

constexpr uint32_t DropoutRate(double share) { return static_cast<uint32_t>(share * 65536 + 0.5); }
// What is kept is multiplied by this.
ALLO_HOST_DEVICE float DropoutScale(uint32_t rate) { return 65536.0f / static_cast<float>(65536 - rate); }

// SplitMix64's output function (Steele et al. 2014, "Fast splittable pseudorandom number generators").
ALLO_HOST_DEVICE uint64_t DropoutMix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// Of one row of probabilities: row = (example heads + head) queries + query.
ALLO_HOST_DEVICE uint32_t DropoutRowKey(uint64_t seed, uint64_t layer, uint64_t row) {
  const uint64_t stream = DropoutMix(seed + (layer + 1) * 0x9e3779b97f4a7c15ull);
  return static_cast<uint32_t>(DropoutMix(stream + (row + 1) * 0x9e3779b97f4a7c15ull) >> 32);
}

// 16 random bits for key 2 `pair`, in the lower half, and 16 for the next one: two rounds of multiplying by Philox's
// constants (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") and folding the product.
ALLO_HOST_DEVICE uint32_t DropoutBits(uint32_t row_key, uint32_t pair) {
  const uint64_t a = static_cast<uint64_t>(row_key + pair * 0x9e3779b9u) * 0xd2511f53u;
  const uint64_t b =
      static_cast<uint64_t>(static_cast<uint32_t>(a >> 32) ^ static_cast<uint32_t>(a) ^ row_key) * 0xcd9e8d57u;
  return static_cast<uint32_t>(b >> 32) ^ static_cast<uint32_t>(b);
}
ALLO_HOST_DEVICE bool DropoutKeeps(uint32_t bits, int odd, uint32_t rate) {
  return (odd ? bits >> 16 : bits & 0xffffu) >= rate;
}

}  // namespace allometry::trainer::kernels
