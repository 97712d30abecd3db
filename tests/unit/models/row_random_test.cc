#include "worker/trainer/layers/row_random.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "worker/trainer/layers/kernels.h"
#include "worker/trainer/layers/ops.h"

namespace allometry::trainer {
namespace {

// The third draw of a pass over some rows of a batch of [outer, 12, 35].
at::Tensor Mask(int64_t first, int64_t rows, int64_t outer = 1, at::ScalarType type = at::kFloat, double p = 0.3) {
  BeginRows(7, 9, first, rows);
  DropoutMask({rows, 4}, at::kFloat, 0.5);
  RandomUniform({rows, 4}, at::kFloat, 0, 1);
  return outer == 1 ? DropoutMask({rows, 5, 7}, type, p)
                    : DropoutMask({outer, rows * 5, 7}, type, p, {.outer = outer, .of = outer});
}

TEST(RowRandom, ARowDrawsTheSameInAnyDivisionOfTheBatch) {
  for (const int64_t outer : {1, 3}) {
    const at::Tensor whole = Mask(0, 12, outer).view({outer, 12, 35});
    for (const int64_t rows : {1, 2, 4, 6})
      for (int64_t first = 0; first < 12; first += rows)
        EXPECT_TRUE(at::equal(Mask(first, rows, outer).view({outer, rows, 35}), whole.narrow(1, first, rows)))
            << outer << " " << rows << " from " << first;
  }
}

// Two ranks of six rows, each with some of three experts, for a micro-batch of two rows: what one rank with all would
// draw.
TEST(RowRandom, ExpertsThatAreDividedAmongRanksDrawTheSame) {
  const at::Tensor whole = Mask(0, 12, 3).view({3, 12, 35});
  for (const int64_t first : {0, 2, 4})
    for (const int64_t rank : {0, 1})
      for (const auto& [expert, experts] : {std::pair<int64_t, int64_t>{0, 1}, {1, 2}}) {
        BeginRows(7, 9, rank * 6 + first, 2);
        DropoutMask({2, 4}, at::kFloat, 0.5);
        RandomUniform({2, 4}, at::kFloat, 0, 1);
        const RowLayout by{.outer = experts, .first = expert, .of = 3, .blocks = 2, .own_block = rank, .block_rows = 6};
        const RowRandom before = CurrentRowRandom();
        const at::Tensor mask = DropoutMask({experts, 2, 2, 35}, at::kFloat, 0.3, by);
        for (const int64_t block : {0, 1})
          EXPECT_TRUE(
              at::equal(mask.select(1, block), whole.narrow(0, expert, experts).narrow(1, block * 6 + first, 2)));
        SetRowRandom(before);
        const ops::ForceAten force;
        EXPECT_TRUE(at::equal(mask, DropoutMask({experts, 2, 2, 35}, at::kFloat, 0.3, by)));
      }
}

TEST(RowRandom, EveryInstructionSetTypeAndTheTensorOperationsDrawTheSame) {
  const KernelSet fastest = FastestKernelSet();
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16})
    for (const int64_t outer : {1, 3}) {
      UseKernelSet(fastest);
      const at::Tensor expected = Mask(3, 5, outer, at::kDouble).to(type);
      for (int set = 0; set <= static_cast<int>(fastest); ++set) {
        UseKernelSet(static_cast<KernelSet>(set));
        EXPECT_TRUE(at::equal(Mask(3, 5, outer, type), expected)) << type << " set " << set;
      }
      const ops::ForceAten force;
      EXPECT_TRUE(at::equal(Mask(3, 5, outer, type), expected)) << type << " by tensors";
    }
  UseKernelSet(fastest);
}

TEST(RowRandom, UniformNumbersAreTheSameByTensorOperations) {
  for (const auto type : {at::kFloat, at::kDouble}) {
    BeginRows(1, 2, 5, 3);
    const at::Tensor loops = RandomUniform({3, 1001}, type, 0.99, 1.01);
    BeginRows(1, 2, 5, 3);
    const ops::ForceAten force;
    EXPECT_TRUE(at::allclose(loops, RandomUniform({3, 1001}, type, 0.99, 1.01), 0, 3e-7));
    EXPECT_GE(loops.min().item<double>(), 0.99 - 1e-7);
    EXPECT_LE(loops.max().item<double>(), 1.01 + 1e-7);
    EXPECT_NEAR(loops.to(at::kDouble).mean().item<double>(), 1.0, 0.02 / std::sqrt(12 * 3003.0) * 4);
  }
}

// Shares, pairs of neighbours, of rows, of draws and of steps: within four standard deviations of chance.
TEST(RowRandom, DrawsLookIndependent) {
  constexpr int64_t kRows = 50, kValues = 40'000;
  constexpr double kP = 0.1, kCount = static_cast<double>(kRows * kValues);
  const auto kept = [](uint64_t seed, int64_t step) {
    BeginRows(seed, step, 0, kRows);
    const at::Tensor a = DropoutMask({kRows, kValues}, at::kFloat, kP),
                     b = DropoutMask({kRows, kValues}, at::kFloat, kP);
    return std::pair{a.ne(0).to(at::kDouble).sub_(1 - kP), b.ne(0).to(at::kDouble).sub_(1 - kP)};
  };
  const auto [a, b] = kept(1, 1);
  const double variance = kP * (1 - kP), limit = 4 / std::sqrt(kCount);
  EXPECT_NEAR(a.mean().item<double>() / std::sqrt(variance), 0, limit);
  const auto correlation = [&](const at::Tensor& x, const at::Tensor& y) {
    return (x * y).mean().item<double>() / variance;
  };
  for (const int64_t lag : {1, 2, 3, 16, 1024})
    EXPECT_NEAR(correlation(a.slice(1, lag), a.slice(1, 0, kValues - lag)), 0, limit * 1.1) << lag;
  EXPECT_NEAR(correlation(a.slice(0, 1), a.slice(0, 0, kRows - 1)), 0, limit * 1.1);
  EXPECT_NEAR(correlation(a, b), 0, limit);
  EXPECT_NEAR(correlation(a, kept(1, 2).first), 0, limit);
  EXPECT_NEAR(correlation(a, kept(2, 1).first), 0, limit);
  EXPECT_DOUBLE_EQ(DropoutMask({kRows, 4}, at::kFloat, 0.2).max().item<double>(), 1.25f);
}

TEST(RowRandom, AThreadCountChangesNothing) {
  const int threads = at::get_num_threads();
  BeginRows(3, 3, 2, 4);
  const at::Tensor one = (at::set_num_threads(1), DropoutMask({4, 100'000}, at::kFloat, 0.1));
  BeginRows(3, 3, 2, 4);
  const at::Tensor two = (at::set_num_threads(2), DropoutMask({4, 100'000}, at::kFloat, 0.1));
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one, two));
}

TEST(RowRandom, WhatHasNoRowsIsRefused) {
  BeginRows(1, 1, 0, 4);
  EXPECT_THROW(DropoutMask({6, 3}, at::kFloat, 0.1), c10::Error);
  EXPECT_FALSE(DropoutMask({6, 3}, at::kFloat, 0).defined());
  EXPECT_EQ(DropoutMask({4, 0}, at::kFloat, 0.5).numel(), 0);
  BeginRows(0, 0, 0, 1);
}

}  // namespace
}  // namespace allometry::trainer
