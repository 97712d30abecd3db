// The forms, both estimators on made-up runs, and what is refused.

#include "analysis/laws.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "analysis/law_kernel.h"
#include "analysis/laws_json.h"
#include "law_points.h"

namespace allometry::analysis {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr LawOptions kNoBootstrap{.replicates = 0};

// The sum of Huber losses, and nothing else, by the library's functions.
double PlainHuber(const std::vector<LawPoint>& points, const std::array<double, 5>& q, double delta) {
  double sum = 0;
  for (const LawPoint& p : points) {
    const double model =
        std::exp(q[0] - q[3] * std::log(p.x)) + std::exp(q[1] - q[4] * std::log(p.tokens)) + std::exp(q[2]);
    const double r = std::abs(std::log(p.y) - std::log(model));
    sum += r <= delta ? r * r / 2 : delta * (r - delta / 2);
  }
  return sum;
}

HuberSystem<2> KernelAt(const std::vector<LawPoint>& points, std::array<double, 5> q, double delta) {
  std::vector<double> n, d, loss;
  for (const LawPoint& p : points) n.push_back(p.x), d.push_back(p.tokens), loss.push_back(p.y);
  const auto log_points = LogPoints<2>::Of({n, d}, loss);
  for (int k = 0; k < 2; ++k) q[k] -= q[3 + k] * log_points.centre[k];
  return EvaluateHuber<2>(log_points, q, delta);
}

TEST(LawKernel, IsTheSumOfHuberLosses) {
  const std::vector<LawPoint> points = MadeUpRuns(0.01, 1);
  for (const std::array<double, 5>& q :
       {std::array<double, 5>{6, 7.6, 0.6, 0.34, 0.37}, {25, 0, -1, 1, 0}, {0, 0, 1, 2, 2}})
    for (double delta : {1e-3, 0.1})
      EXPECT_NEAR(KernelAt(points, q, delta).objective / PlainHuber(points, q, delta), 1, 1e-12);
}

TEST(LawKernel, DerivativesAgreeWithDifferences) {
  const std::vector<LawPoint> points = MadeUpRuns(0.01, 2);
  std::vector<double> n, d, loss;
  for (const LawPoint& p : points) n.push_back(p.x), d.push_back(p.tokens), loss.push_back(p.y);
  const auto log_points = LogPoints<2>::Of({n, d}, loss);
  const std::array<double, 5> q{-1, -1, 0.6, 0.3, 0.4};
  const double delta = 1;  // no point near a kink, where differences would see both sides
  const HuberSystem<2> at = EvaluateHuber<2>(log_points, q, delta);
  for (int i = 0; i < 5; ++i) {
    const double h = 1e-5;
    std::array<double, 5> up = q, down = q;
    up[i] += h, down[i] -= h;
    const HuberSystem<2> above = EvaluateHuber<2>(log_points, up, delta),
                         below = EvaluateHuber<2>(log_points, down, delta);
    EXPECT_NEAR(at.gradient[i], (above.objective - below.objective) / (2 * h), 1e-7);
    for (int j = 0; j < 5; ++j)
      EXPECT_NEAR(at.hessian[i * 5 + j], (above.gradient[j] - below.gradient[j]) / (2 * h), 1e-6) << i << j;
  }
}

// Every form goes through exact values of itself.
struct ExactCase {
  LawForm form;
  std::vector<double> truth;
};

TEST(Laws, ExactValuesGiveTheTruthBack) {
  const std::vector<ExactCase> cases = {
      {LawForm::kParametersTokens, kLawTruth},  {LawForm::kTied, {1.8, 480, 2100, 0.35}},
      {LawForm::kCompute, {1.7, 1600, 0.16}},   {LawForm::kBroken, {1.5, 30, 0.06, 0.15, 3e19, 0.3}},
      {LawForm::kSigmoid, {0.25, 0.6, 4, 2.6}}, {LawForm::kExponential, {0.8, 3, 0.9}}};
  for (const ExactCase& c : cases) {
    std::vector<LawPoint> points;
    for (int i = 0; i < 24; ++i) {
      LawPoint p{PredictsLoss(c.form) ? 1e17 * std::pow(10, 0.25 * i) : 1.8 + 0.1 * i, 0, 0};
      if (HasTokens(c.form)) p.x = 1e7 * std::pow(10, 0.25 * (i % 12)), p.tokens = p.x * (i < 12 ? 5 : 100);
      p.y = EvaluateLaw(c.form, c.truth, p.x, p.tokens);
      points.push_back(p);
    }
    const auto result = FitLaw(c.form, points, kNoBootstrap);
    ASSERT_TRUE(result) << result.error().message;
    for (const LawFit& fit : result->fits) {
      EXPECT_THAT(fit.certificate.failures, IsEmpty()) << LawFormName(c.form) << " " << LawMethodName(fit.method);
      for (size_t i = 0; i < c.truth.size(); ++i)
        EXPECT_NEAR(fit.estimates[i].value / c.truth[i], 1, 1e-3)
            << LawFormName(c.form) << " " << fit.estimates[i].name;
    }
  }
}

TEST(Laws, BothMethodsConvergeAndAgreeOnNoisyRuns) {
  const LawResult result = FitLaw(LawForm::kParametersTokens, MadeUpRuns(0.004, 3), {.replicates = 400}).value();
  ASSERT_THAT(result.fits, SizeIs(2));
  for (const LawFit& fit : result.fits) {
    EXPECT_THAT(fit.certificate.failures, IsEmpty()) << LawMethodName(fit.method);
    for (const LawEstimate& e : fit.estimates) {
      ASSERT_TRUE(e.interval);
      EXPECT_LT(e.interval->low, e.value);
      EXPECT_GT(e.interval->high, e.value);
    }
    EXPECT_NEAR(fit.estimates[3].value, 0.35, 0.05);
  }
  EXPECT_THAT(result.disagreement, SizeIs(5));
}

TEST(Laws, AnotherSeedDrawsOtherIntervals) {
  const std::vector<LawPoint> points = MadeUpRuns(0.004, 5);
  const auto interval = [&](uint64_t seed) {
    return FitLaw(LawForm::kCompute, points, {.replicates = 50, .seed = seed})
        .value()
        .fits[0]
        .estimates[0]
        .interval->low;
  };
  EXPECT_EQ(interval(1), interval(1));
  EXPECT_NE(interval(1), interval(2));
}

TEST(Laws, UnitsOfSizeChangeOnlyTheCoefficients) {
  std::vector<LawPoint> points = MadeUpRuns(0.004, 6);
  const auto exponents = [&] {
    const LawResult result = FitLaw(LawForm::kParametersTokens, points, kNoBootstrap).value();
    return std::vector<double>{result.fits[0].estimates[3].value, result.fits[1].estimates[3].value,
                               result.fits[0].estimates[4].value, result.fits[1].estimates[4].value};
  };
  const std::vector<double> before = exponents();
  for (LawPoint& p : points) p.tokens /= 1e6;
  const std::vector<double> after = exponents();
  for (size_t i = 0; i < before.size(); ++i) EXPECT_NEAR(after[i], before[i], 1e-5);
}

TEST(Laws, DegenerateDataIsRefusedWithAReason) {
  const std::vector<LawPoint> good = MadeUpRuns(0.004, 7);
  const auto refusal = [](LawForm form, const std::vector<LawPoint>& points) {
    const auto result = FitLaw(form, points, kNoBootstrap);
    return result ? std::string("none") : result.error().message;
  };
  const auto with = [&](double LawPoint::*member, double value) {
    std::vector<LawPoint> points = good;
    points[3].*member = value;
    return points;
  };
  constexpr LawForm kForm = LawForm::kParametersTokens;
  EXPECT_THAT(refusal(kForm, {}), HasSubstr("there are 0"));
  EXPECT_THAT(refusal(kForm, with(&LawPoint::y, NAN)), HasSubstr("point 4: the loss is nan"));
  EXPECT_THAT(refusal(kForm, with(&LawPoint::y, -1)), HasSubstr("must be positive"));
  EXPECT_THAT(refusal(kForm, with(&LawPoint::x, 0)), HasSubstr("the size is 0"));
  EXPECT_THAT(refusal(kForm, with(&LawPoint::tokens, INFINITY)), HasSubstr("tokens is inf"));
  EXPECT_THAT(refusal(kForm, {good.begin(), good.begin() + 5}), HasSubstr("needs 6 points"));
  EXPECT_THAT(refusal(kForm, std::vector<LawPoint>(20, good[0])), HasSubstr("there are 1"));
  EXPECT_THAT(refusal(kForm, {good.begin(), good.begin() + 6}), HasSubstr("same size"));
  EXPECT_THAT(refusal(LawForm::kSigmoid, good), HasSubstr("from 0 to 1"));
  EXPECT_FALSE(FitLaw(kForm, good, {.confidence = 1}));
  EXPECT_FALSE(FitLaw(kForm, good, {.replicates = -1}));
  EXPECT_FALSE(FitLaw(kForm, good, {.delta = 0}));
  EXPECT_FALSE(ParseLawForm("linear"));
}

TEST(Laws, DuplicatedPointsDoNotMoveTheFit) {
  std::vector<LawPoint> points = MadeUpRuns(0.004, 8);
  const LawResult once = FitLaw(LawForm::kParametersTokens, points, kNoBootstrap).value();
  points.insert(points.end(), points.begin(), points.end());
  const LawResult twice = FitLaw(LawForm::kParametersTokens, points, kNoBootstrap).value();
  for (size_t method = 0; method < 2; ++method)
    EXPECT_NEAR(twice.fits[method].estimates[3].value, once.fits[method].estimates[3].value, 1e-5);
}

TEST(Laws, JsonNamesTheStatusAndTheReasons) {
  const LawResult result = FitLaw(LawForm::kCompute, MadeUpRuns(0.004, 9), {.replicates = 20}).value();
  const common::Json json = ToJson(result);
  EXPECT_EQ(json["form"], "compute");
  EXPECT_EQ(json["fits"][0]["method"], "huber");
  EXPECT_EQ(json["fits"][1]["method"], "variable_projection");
  for (size_t i = 0; i < 2; ++i)
    EXPECT_EQ(json["fits"][i]["status"], result.fits[i].converged() ? "converged" : "not converged");
  EXPECT_EQ(json["fits"][0]["estimates"][2]["name"], "alpha");
  EXPECT_TRUE(json["fits"][0]["certificate"].contains("scaled_gradient"));
}

}  // namespace
}  // namespace allometry::analysis
