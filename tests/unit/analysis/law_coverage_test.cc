// Bias of each estimator of L(N, D), and what its bootstrap intervals cover, on made-up runs with a known truth. The
// bounds are around what was found, which docs/science.md states; they are no promise of 95 %.

#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "analysis/law_bootstrap.h"
#include "analysis/law_solver.h"
#include "law_points.h"

namespace allometry::analysis {
namespace {

constexpr int kSets = 200, kReplicates = 100;
constexpr double kNoise = 0.004;  // standard deviation in ln loss

// Of 36 runs, a part is wrong: their ln loss is off by ten times the noise.
std::vector<LawPoint> RunsWithOutliers(uint64_t seed, int every) {
  std::vector<LawPoint> runs = MadeUpRuns(kNoise, seed);
  for (size_t i = seed % 5; every > 0 && i < runs.size(); i += static_cast<size_t>(every))
    runs[i].y *= std::exp((i % 2 ? 10 : -10) * kNoise);
  return runs;
}

struct Found {
  double bias[2] = {}, sd[2] = {}, coverage[2] = {};  // of alpha and beta
};

template <typename Make>
Found Study(Make make_solver, int outlier_every) {
  constexpr int kFirst = 3;  // alpha's place in (E, A, B, alpha, beta)
  Found found;
  double squares[2] = {};
  int covered[2] = {};
  for (int set = 0; set < kSets; ++set) {
    const std::vector<LawPoint> runs = RunsWithOutliers(7000 + static_cast<uint64_t>(set), outlier_every);
    const std::unique_ptr<LawSolver> solver = make_solver(runs);
    const std::vector<double> ones(runs.size(), 1);
    const std::vector<double> fit = solver->Refit(ones, kLawTruth).value();
    const auto replicates = Bootstrap(*solver, fit, kReplicates, 1, 0);
    for (int k = 0; k < 2; ++k) {
      const double truth = kLawTruth[kFirst + k], error = fit[kFirst + k] - truth;
      const Range interval = PercentileInterval(Column(replicates, kFirst + k), 0.95);
      found.bias[k] += error / kSets;
      squares[k] += error * error / kSets;
      covered[k] += interval.low <= truth && truth <= interval.high;
    }
  }
  for (int k = 0; k < 2; ++k) {
    found.sd[k] = std::sqrt(squares[k] - found.bias[k] * found.bias[k]);
    found.coverage[k] = static_cast<double>(covered[k]) / kSets;
  }
  return found;
}

Found HuberStudy(int outlier_every) {
  return Study([](const auto& runs) { return MakeHuberSolver(LawForm::kParametersTokens, runs, 1e-3); }, outlier_every);
}

Found ProjectionStudy(int outlier_every) {
  return Study([](const auto& runs) { return MakeProjectionSolver(LawForm::kParametersTokens, runs); }, outlier_every);
}

void ExpectUnbiased(const Found& found) {
  for (int k = 0; k < 2; ++k) EXPECT_LT(std::abs(found.bias[k]), 0.25 * found.sd[k]);
}

void ExpectCoverage(const Found& found, double low, double high) {
  for (double coverage : found.coverage) {
    EXPECT_GE(coverage, low);
    EXPECT_LE(coverage, high);
  }
}

class LawCoverage : public ::testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "slow with a sanitizer, and about numbers only";
#endif
  }
};

TEST_F(LawCoverage, HuberIsUnbiasedAndCoversALittleMore) {
  const Found found = HuberStudy(0);
  ExpectUnbiased(found);
  ExpectCoverage(found, 0.93, 1);
}

TEST_F(LawCoverage, ProjectionIsUnbiasedAndCoversALittleLess) {
  const Found found = ProjectionStudy(0);
  ExpectUnbiased(found);
  ExpectCoverage(found, 0.87, 0.98);
  const Found huber = HuberStudy(0);
  for (int k = 0; k < 2; ++k) EXPECT_LT(found.sd[k], huber.sd[k]) << "normal noise is least squares' own";
}

TEST_F(LawCoverage, HuberStandsOutliersBetter) {
  const Found huber = HuberStudy(9), projection = ProjectionStudy(9);
  ExpectUnbiased(huber);
  ExpectUnbiased(projection);
  ExpectCoverage(huber, 0.94, 1);
  ExpectCoverage(projection, 0.94, 1);
  for (int k = 0; k < 2; ++k) EXPECT_LT(huber.sd[k], projection.sd[k]);
}

}  // namespace
}  // namespace allometry::analysis
