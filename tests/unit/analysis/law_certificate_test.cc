// Each trap that gives a number and no minimum, with data that leads into it.

#include "analysis/law_certificate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "analysis/huber_fit.h"
#include "analysis/laws.h"
#include "law_points.h"

namespace allometry::analysis {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr double kDelta = 1e-3;

LogPoints<2> LogPointsOf(const std::vector<LawPoint>& points) {
  std::vector<double> n, d, loss;
  for (const LawPoint& p : points) n.push_back(p.x), d.push_back(p.tokens), loss.push_back(p.y);
  return LogPoints<2>::Of({n, d}, loss);
}

std::vector<double> LawOf(const LogPoints<2>& points, const LawVector<2>& centred) {
  const LawVector<2> q = Uncentred<2>(centred, points.centre);
  return {std::exp(q[2]), std::exp(q[0]), std::exp(q[1]), q[3], q[4]};
}

// Steepest descent with backtracking, that ends when no entry of the gradient exceeds `tolerance`: the rule of
// general-purpose optimisers, which knows nothing of the scale of what it minimises. `scale` is that of the objective.
LawVector<2> PlainDescent(const LogPoints<2>& points, LawVector<2> q, double scale, double tolerance) {
  double step = 1;
  for (int i = 0; i < 20'000; ++i) {
    const HuberSystem<2> here = EvaluateHuber<2>(points, q, kDelta);
    double largest = 0;
    for (double g : here.gradient) largest = std::max(largest, scale * std::abs(g));
    if (largest < tolerance) break;
    for (step *= 4; step > 1e-12; step /= 2) {
      LawVector<2> next = q;
      for (size_t p = 0; p < next.size(); ++p) next[p] -= step * here.gradient[p];
      if (EvaluateHuber<2>(points, next, kDelta).objective < here.objective) {
        q = next;
        break;
      }
    }
  }
  return q;
}

// The mean of Huber losses with delta 1e-3 has gradients below 1e-3 everywhere, so that a tolerance of 1e-5 is met far
// from the minimum. It is one of the ways in which published parameters went wrong (Besiroglu et al. 2024, 3.2).
TEST(LawCertificate, CatchesAnEarlyStopThroughASmallLossScale) {
  const std::vector<LawPoint> runs = MadeUpRuns(0.004, 21);
  const LogPoints<2> points = LogPointsOf(runs);
  const LawVector<2> start = Centred<2>({7, 8, 0.5, 0.4, 0.4}, points.centre);
  const LawVector<2> end = PlainDescent(points, start, 1.0 / 36, 1e-5);
  const auto solver = MakeHuberSolver(LawForm::kParametersTokens, runs, kDelta);
  const Certificate c = Certify(*solver, LawOf(points, end), LawOf(points, start), {});
  EXPECT_GT(c.distance_from_start, 1e-3) << "it did move";
  EXPECT_THAT(c.failures, Contains(HasSubstr("not a minimum")));
}

TEST(LawCertificate, CatchesAnOptimiserThatReturnedItsStart) {
  const std::vector<LawPoint> runs = MadeUpRuns(0.004, 22);
  const LogPoints<2> points = LogPointsOf(runs);
  const LawVector<2> start = Centred<2>({7, 8, 0.5, 0.4, 0.4}, points.centre);
  const LawVector<2> end = PlainDescent(points, start, 1.0 / 36, 1e-1);
  const auto solver = MakeHuberSolver(LawForm::kParametersTokens, runs, kDelta);
  const Certificate c = Certify(*solver, LawOf(points, end), LawOf(points, start), {});
  EXPECT_THAT(c.failures, Contains(HasSubstr("returned its start")));
  EXPECT_THAT(c.failures, Contains(HasSubstr("not a minimum")));
}

// One ratio of tokens to parameters: A/N^alpha + B/D^beta is one curve of N.
TEST(LawCertificate, CatchesAFlatValley) {
  std::vector<LawPoint> runs = MadeUpRuns(0.002, 23);
  for (size_t i = 0; i < runs.size(); ++i) {
    const double noise = runs[i].y / EvaluateLaw(LawForm::kParametersTokens, kLawTruth, runs[i].x, runs[i].tokens);
    runs[i].x *= 1 + 0.1 * static_cast<double>(i % 6);
    runs[i].tokens = 20 * runs[i].x;
    runs[i].y = noise * EvaluateLaw(LawForm::kParametersTokens, kLawTruth, runs[i].x, runs[i].tokens);
  }
  const LawResult result = FitLaw(LawForm::kParametersTokens, runs, {.replicates = 0}).value();
  for (const LawFit& fit : result.fits) {
    EXPECT_FALSE(fit.converged());
    EXPECT_THAT(fit.certificate.failures, Contains(HasSubstr("one line of ln N and ln D")));
  }
}

// Without the check of the sizes, by the condition number alone: the truth's own parameters on such runs.
TEST(LawCertificate, SeesTheFlatValleyInTheConditionNumber) {
  std::vector<LawPoint> runs = MadeUpRuns(0, 24);
  std::vector<double> truth = kLawTruth;
  truth[4] = truth[3];
  for (LawPoint& p : runs) p.tokens = 20 * p.x, p.y = EvaluateLaw(LawForm::kParametersTokens, truth, p.x, p.tokens);
  const auto solver = MakeHuberSolver(LawForm::kParametersTokens, runs, kDelta);
  const Certificate c = Certify(*solver, truth, {}, {});
  EXPECT_GT(c.condition, 1e12);
  EXPECT_THAT(c.failures, Contains(HasSubstr("flat valley")));
  EXPECT_LT(
      Certify(*MakeHuberSolver(LawForm::kParametersTokens, MadeUpRuns(0, 24), kDelta), kLawTruth, {}, {}).condition,
      1e5)
      << "well-spread runs";
}

// Losses that fall to nothing: no irreducible loss is left to find.
TEST(LawCertificate, CatchesAnActiveBound) {
  std::vector<LawPoint> runs = MadeUpRuns(0.01, 25);
  for (LawPoint& p : runs) p.y -= 1.9;
  const LawResult result = FitLaw(LawForm::kParametersTokens, runs, {.replicates = 0}).value();
  EXPECT_THAT(result.fits[1].certificate.active_bounds, Contains("E is 0"));
  for (const LawFit& fit : result.fits)
    EXPECT_THAT(fit.certificate.failures, Contains(HasSubstr("active bound"))) << LawMethodName(fit.method);
}

// One wrong loss, at the largest size: least squares follows it, Huber's fit does not.
TEST(LawCertificate, CatchesAnOutlierThatMovesOneMethodOnly) {
  std::vector<LawPoint> runs = MadeUpRuns(0.002, 26);
  const LawResult clean = FitLaw(LawForm::kParametersTokens, runs, {.replicates = 300}).value();
  EXPECT_THAT(clean.fits[0].certificate.failures, IsEmpty());
  runs.back().y *= 1.2;
  const LawResult result = FitLaw(LawForm::kParametersTokens, runs, {.replicates = 300}).value();
  EXPECT_NEAR(result.fits[0].estimates[3].value, clean.fits[0].estimates[3].value, 0.02);
  for (const LawFit& fit : result.fits)
    EXPECT_THAT(fit.certificate.failures, Contains(HasSubstr("the methods disagree")));
}

TEST(LawCertificate, CountsTheStartsAtTheMinimum) {
  const LawResult result = FitLaw(LawForm::kParametersTokens, MadeUpRuns(0.004, 27), {.replicates = 0}).value();
  const Certificate& huber = result.fits[0].certificate;
  EXPECT_EQ(huber.starts, 4500);
  EXPECT_GT(huber.starts_at_best, 450);
  EXPECT_LT(huber.spread, 1e-3);
  EXPECT_LT(huber.scaled_gradient, 1e-5);
  EXPECT_TRUE(huber.outlier_share);
}

TEST(LawCertificate, OneLonelyStartIsNoMinimum) {
  const std::vector<LawPoint> runs = MadeUpRuns(0.004, 28);
  const auto solver = MakeHuberSolver(LawForm::kParametersTokens, runs, kDelta);
  const std::vector<double> law =
      FitLaw(LawForm::kParametersTokens, runs, {.replicates = 0}).value().fits[0].Parameters();
  const double best = solver->Inspect(law).objective;
  std::vector<StartResult> starts(20, {kLawTruth, {1.9, 500, 2000, 0.36, 0.36}, 2 * best});
  starts[0] = {kLawTruth, law, best};
  EXPECT_THAT(Certify(*solver, law, kLawTruth, starts).failures, Contains(HasSubstr("only 1 of 20 starts")));
  starts[1] = starts[2] = {kLawTruth, {1.7, 300, 3000, 0.3, 0.4}, best};
  EXPECT_THAT(Certify(*solver, law, kLawTruth, starts).failures, Contains(HasSubstr("same objective")));
}

}  // namespace
}  // namespace allometry::analysis
