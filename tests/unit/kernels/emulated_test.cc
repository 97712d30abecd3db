// The emulator that the kernels' tests stand on.
#include "worker/trainer/kernels/emulated.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#include "worker/trainer/kernels/device.h"

namespace allometry::trainer::kernels {
namespace {

using emulated::Emulate;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

__global__ void SumOfBlocks(const float* x, float* sums, int n) {
  float* partial = reinterpret_cast<float*>(DynamicShared());
  const unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
  partial[threadIdx.x] = static_cast<int>(at) < n ? x[at] : 0.0f;
  __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = partial[0];
}

TEST(Emulated, ReducesThroughSharedMemory) {
  constexpr int kCount = 1000;
  std::vector<float> x(kCount), sums(4);
  std::iota(x.begin(), x.end(), 1.0f);
  for (uint64_t seed = 0; seed < 5; ++seed) {
    emulated::UseOrder(seed);
    Launch(nullptr, &SumOfBlocks, dim3(4), dim3(256), 256 * sizeof(float), x.data(), sums.data(), kCount);
    EXPECT_EQ(std::accumulate(sums.begin(), sums.end(), 0.0f), 1000.0f * 1001.0f / 2);
  }
}

TEST(Emulated, MissingBarrierShows) {
  std::vector<int> wrong(1);
  const auto kernel = [&] {
    __shared__ int value[64];
    value[threadIdx.x] = -1;
    __syncthreads();
    value[threadIdx.x] = static_cast<int>(threadIdx.x);
    if (value[63 - threadIdx.x] != static_cast<int>(63 - threadIdx.x)) ++wrong[0];
  };
  Emulate(1, 64, 0, kernel);
  EXPECT_GT(wrong[0], 0);
}

TEST(Emulated, ShufflesAsTheHardwareDoes) {
  std::vector<int> xored(64), down(64), up(64), from(64), width(64);
  std::vector<unsigned> votes(64);
  Emulate(1, 64, 0, [&] {
    const int me = static_cast<int>(threadIdx.x);
    xored[threadIdx.x] = __shfl_xor_sync(kAllLanes, me, 5);
    down[threadIdx.x] = __shfl_down_sync(kAllLanes, me, 3u);
    up[threadIdx.x] = __shfl_up_sync(kAllLanes, me, 3u);
    from[threadIdx.x] = __shfl_sync(kAllLanes, me, 7);
    width[threadIdx.x] = __shfl_xor_sync(kAllLanes, me, 2, 4);
    votes[threadIdx.x] = __ballot_sync(kAllLanes, me % 3 == 0);
  });
  for (int i = 0; i < 64; ++i) {
    const auto at = static_cast<size_t>(i);
    const int lane = i % 32, warp = i - lane;
    EXPECT_EQ(xored[at], warp + (lane ^ 5));
    EXPECT_EQ(down[at], lane + 3 < 32 ? i + 3 : i);
    EXPECT_EQ(up[at], lane >= 3 ? i - 3 : i);
    EXPECT_EQ(from[at], warp + 7);
    EXPECT_EQ(width[at], i ^ 2);
    EXPECT_EQ(votes[at] >> lane & 1u, i % 3 == 0);
  }
}

TEST(Emulated, PartOfAWarpMayMeet) {
  std::vector<int> sum(32);
  Emulate(1, 32, 0, [&] {
    if (threadIdx.x >= 16) return;
    int value = 1;
    for (int bit = 8; bit > 0; bit /= 2) value += __shfl_xor_sync(0xffffu, value, bit);
    sum[threadIdx.x] = value;
  });
  EXPECT_EQ(sum[0], 16);
  EXPECT_EQ(sum[15], 16);
}

TEST(Emulated, NamesWaitsForEver) {
  EXPECT_THAT(([] {
                Emulate(1, 64, 0, [] {
                  if (threadIdx.x == 40)
                    __shfl_sync(kAllLanes, 1, 0);
                  else
                    __syncthreads();
                });
              }),
              ThrowsMessage<std::logic_error>(HasSubstr("thread 40 in a shuffle")));
  EXPECT_THAT(([] {
                Emulate(1, 32, 0, [] {
                  if (threadIdx.x != 3) __syncwarp();
                });
              }),
              ThrowsMessage<std::logic_error>(HasSubstr("gone")));
  EXPECT_THAT(([] {
                Emulate(1, 32, 0, [] {
                  if (threadIdx.x < 16)
                    __syncwarp();
                  else
                    __shfl_sync(kAllLanes, 1, 0);
                });
              }),
              ThrowsMessage<std::logic_error>(HasSubstr("meet in")));
}

TEST(Emulated, FindsBadMemoryAndLaunches) {
  EXPECT_THAT([] { Emulate(1, 32, 64, [] { DynamicShared()[64 + threadIdx.x] = 1; }); },
              ThrowsMessage<std::logic_error>(HasSubstr("beyond the dynamic shared memory")));
  alignas(16) float x[8] = {};
  EXPECT_THAT(([&] {
                Emulate(1, 1, 0, [&] {
                  float v[4];
                  LoadVector(x + 1, v);
                });
              }),
              ThrowsMessage<std::logic_error>(HasSubstr("aligned")));
  EXPECT_THROW(Emulate(1, 2048, 0, [] {}), std::logic_error);
  EXPECT_THROW(Emulate(dim3(1, 70000), 32, 0, [] {}), std::logic_error);
  EXPECT_THROW(Emulate(0, 32, 0, [] {}), std::logic_error);
}

TEST(Emulated, CopiesArriveWhenTheyAreAwaited) {
  alignas(16) uint32_t from[32 * 4], seen_early[32], seen_late[32];
  std::iota(from, from + 128, 0u);
  Emulate(1, 32, 32 * 16, [&] {
    auto* shared = reinterpret_cast<uint32_t*>(DynamicShared());
    const unsigned neighbour = (threadIdx.x + 1) % 32;
    CopyAsync16(shared + threadIdx.x * 4, from + threadIdx.x * 4);
    CommitCopies();
    seen_early[threadIdx.x] = shared[threadIdx.x * 4];
    WaitCopies<0>();
    __syncthreads();
    seen_late[threadIdx.x] = shared[neighbour * 4];
  });
  for (unsigned i = 0; i < 32; ++i) {
    EXPECT_EQ(seen_early[i], 0xffffffffu);
    EXPECT_EQ(seen_late[i], (i + 1) % 32 * 4);
  }
}

TEST(Emulated, RoundsToBfloat16AsTheHardwareDoes) {
  EXPECT_EQ(Narrow<Bf16>(1.0f).bits, 0x3f80);
  EXPECT_EQ(Narrow<Bf16>(1.00390625f).bits, 0x3f80);  // half way: to the even
  EXPECT_EQ(Narrow<Bf16>(1.01171875f).bits, 0x3f82);  // half way: to the even
  EXPECT_EQ(Narrow<Bf16>(3.4e38f).bits, 0x7f80);      // beyond the largest
  EXPECT_TRUE(std::isnan(Widen(Narrow<Bf16>(std::nanf("")))));
  EXPECT_EQ(PackBf16(1.0f, -2.0f), 0xc0003f80u);
}

// D = A B + C through each of the ways to load a fragment.
TEST(Emulated, TensorCoreProduct) {
  std::mt19937 random(1);
  std::uniform_int_distribution<int> digit(-8, 8);  // exact in bfloat16, and so are their sums in float32
  alignas(16) Bf16 a[16][16], at[16][16], b[16][8], bt[8][16];
  float av[16][16], bv[16][8], d[16][8], plain[16][8];
  for (int i = 0; i < 16; ++i)
    for (int k = 0; k < 16; ++k) {
      av[i][k] = static_cast<float>(digit(random));
      a[i][k] = at[k][i] = Narrow<Bf16>(av[i][k]);
    }
  for (int k = 0; k < 16; ++k)
    for (int j = 0; j < 8; ++j) {
      bv[k][j] = static_cast<float>(digit(random));
      b[k][j] = bt[j][k] = Narrow<Bf16>(bv[k][j]);
    }
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 8; ++j) {
      plain[i][j] = 3;
      for (int k = 0; k < 16; ++k) plain[i][j] += av[i][k] * bv[k][j];
    }
  for (const bool transposed : {false, true}) {
    Emulate(1, 32, 0, [&] {
      uint32_t fa[4], fb[2];
      float sums[4] = {3, 3, 3, 3};
      if (transposed) {
        LoadFragmentATransposed(fa, at[0], 16);
        LoadFragmentBTransposed(fb, b[0], 8);
      } else {
        LoadFragmentA(fa, a[0], 16);
        LoadFragmentB(fb, bt[0], 16);
      }
      Mma16816(sums, fa, fb);
      for (unsigned r = 0; r < 4; ++r) d[threadIdx.x / 4 + r / 2 * 8][threadIdx.x % 4 * 2 + r % 2] = sums[r];
    });
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 8; ++j) EXPECT_EQ(d[i][j], plain[i][j]) << i << " " << j;
  }
}

}  // namespace
}  // namespace allometry::trainer::kernels
