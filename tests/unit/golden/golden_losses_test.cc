// What an unchanged architecture must go on computing. A difference is either a mistake or a change of numerics, which
// raises the architecture's numerics_version and is followed by make_golden_losses (see there).
#include "tests/unit/golden/golden_losses.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "arch/architecture.h"
#include "worker/trainer/layers/kernels.h"
#include "worker/trainer/layers/ops.h"

namespace allometry::trainer {
namespace {

// Relative differences. What differs between machines: the project's loops add up vectors of 16 floats in the same
// order in every instruction set, and AVX2 and AVX-512 give the same bits, but SSE2 has no fused multiply-add; MKL and
// ATen choose block sizes and exponentials by the processor. Each loss alone moves by 2e-7, so that the first one,
// which no update has touched, holds to 1e-5.
constexpr double kFirstTolerance = 1e-5;
// That would be so to the end if it were not for ReLU: of the ten million units of fifty steps about one lies so near 0
// that rounding turns it on or off. Its gradient then comes or goes as a whole, and Adafactor, which divides by a
// gradient's own size, makes a full step of the first that a unit gets. At the rates of these runs 6e-5 was the most
// that this left at the end, over all instruction sets of the loops, of ATen and of MKL. A lost term, a wrong constant
// or another draw of random numbers moves losses by 1e-3 from the first step or within a few.
constexpr double kTolerance = 2e-4;

double LargestDifference(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    largest = std::isfinite(a[i]) ? std::max(largest, std::abs(a[i] / b[i] - 1)) : INFINITY;
  return largest;
}

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const arch::Architecture* architecture : arch::Architectures()) names.emplace_back(architecture->name());
  return names;
}

class GoldenLosses : public ::testing::TestWithParam<std::string> {
 protected:
  ~GoldenLosses() override { UseKernelSet(FastestKernelSet()); }
};

TEST_P(GoldenLosses, AreReproduced) {
  const auto file = common::ReadJsonFile(GoldenPath(ALLOMETRY_SOURCE_DIR, GetParam()));
  ASSERT_TRUE(file) << file.error().message << "\nmake_golden_losses writes it";
  const auto stored = file->at("losses").get<std::vector<double>>(), losses = GoldenRun(GetParam());
  const common::Json now = GoldenFile(GetParam(), losses);
  for (const char* key : {"numerics_version", "options"})
    EXPECT_EQ(file->at(key), now.at(key)) << key << " changed: make_golden_losses writes the losses anew";
  EXPECT_LE(std::abs(losses.front() / stored.front() - 1), kFirstTolerance);
  EXPECT_LE(LargestDifference(losses, stored), kTolerance) << now.dump();
  EXPECT_LT(losses.back(), losses.front() - 0.1) << "it learns, or its gradients count for nothing";
}

INSTANTIATE_TEST_SUITE_P(Architectures, GoldenLosses, ::testing::ValuesIn(Names()),
                         [](const auto& info) { return info.param; });

// That the tolerance holds what it is there for: every instruction set of this machine, and ATen in place of the loops.
// Between them these architectures use all loops; universal is the one that amplifies most.
class EveryWay : public GoldenLosses {};

TEST_P(EveryWay, ToComputeThemIsWithinTheTolerance) {
  const std::vector<double> fastest = GoldenRun(GetParam());
  for (KernelSet set : {KernelSet::kBaseline, KernelSet::kAvx2, KernelSet::kAvx512}) {
    if (set > FastestKernelSet()) continue;
    UseKernelSet(set);
    const double difference = LargestDifference(GoldenRun(GetParam()), fastest);
    EXPECT_LE(difference, kTolerance / 2) << "set " << static_cast<int>(set);
    RecordProperty("set_" + std::to_string(static_cast<int>(set)), std::to_string(difference * 1e6) + "e-6");
  }
  const ops::ForceAten force;
  const double difference = LargestDifference(GoldenRun(GetParam()), fastest);
  EXPECT_LE(difference, kTolerance / 2) << "ATen";
  RecordProperty("aten", std::to_string(difference * 1e6) + "e-6");
}

INSTANTIATE_TEST_SUITE_P(Architectures, EveryWay, ::testing::Values("transformer", "glu", "lconv", "universal"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace allometry::trainer
