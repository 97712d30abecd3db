// Laws of a table's cells, their back-tests and next runs.

#include "analysis/law_study.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "analysis/law_forecast.h"
#include "analysis/law_suggest.h"
#include "law_points.h"
#include "study.h"

namespace allometry::analysis {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// Cells of one architecture at six sizes by six ratios of tokens to parameters, `seeds` seeds each.
records::Table Runs(const std::string& architecture, int seeds, double sd) {
  records::Table table;
  for (int seed = 0; seed < seeds; ++seed) {
    for (const LawPoint& point : MadeUpRuns(sd, 100 + static_cast<uint64_t>(seed))) {
      records::Record r = Cell(architecture, "n" + std::to_string(int64_t(point.x)), uint64_t(seed), 1, point.y);
      r.shape = "d" + std::to_string(int64_t(point.tokens));
      r.metrics = {{"validation_loss", point.y},
                   {"parameters", point.x},
                   {"tokens", point.tokens},
                   {"training_flops", 6 * point.x * point.tokens}};
      table.push_back(std::move(r));
    }
  }
  return table;
}

// L(C) = 1.5 + 30 C^-0.2 at eight sizes.
records::Table Curve(const std::string& architecture, int seeds, double sd, int sizes = 8) {
  std::mt19937_64 generator(5);
  std::normal_distribution<double> normal;
  records::Table table;
  for (int i = 0; i < sizes; ++i) {
    const double c = 1e10 * std::pow(5.0, i);
    for (int seed = 0; seed < seeds; ++seed) {
      const double loss = (1.5 + 30 * std::pow(c, -0.2)) * std::exp(sd * normal(generator));
      records::Record r = Cell(architecture, "c" + std::to_string(i), uint64_t(seed), c, loss);
      r.metrics["training_flops"] = c;
      table.push_back(std::move(r));
    }
  }
  return table;
}

double Parameter(const LawFit& fit, const std::string& name) {
  return std::ranges::find(fit.estimates, name, &LawEstimate::name)->value;
}

TEST(LawStudy, FitsWhatTheCellsAllow) {
  const LawStudy study = StudyLaws(Runs("a", 1, 0.002), {.options = {.replicates = 0}}).value();
  ASSERT_THAT(study.laws, SizeIs(2));
  EXPECT_EQ(study.laws[0].form, LawForm::kCompute);
  EXPECT_EQ(study.laws[1].form, LawForm::kParametersTokens);
  const LawResult direct = FitLaw(LawForm::kParametersTokens, study.laws[1].points.points, {.replicates = 0}).value();
  EXPECT_EQ(study.laws[1].fit->fits[0].Parameters(), direct.fits[0].Parameters());
  EXPECT_NEAR(Parameter(study.laws[1].fit->fits[0], "alpha"), kLawTruth[3], 0.02);
}

TEST(LawStudy, PointsAreMeansOverSeedsUnlessRunsAreAskedFor) {
  const records::Table table = Runs("a", 2, 0.002);
  const auto points = [&](bool runs) {
    return StudyLaws(table, {.points = {.runs = runs}, .forms = {LawForm::kTied}, .options = {.replicates = 0}})
        .value()
        .laws[0]
        .points;
  };
  ASSERT_THAT(points(false).points, SizeIs(36));
  ASSERT_THAT(points(true).points, SizeIs(72));
  const std::string size = points(false).names[0];
  double sum = 0;
  for (const records::Record& r : table)
    if (SizeLabel(r) == size) sum += r.metrics.at("validation_loss");
  EXPECT_DOUBLE_EQ(points(false).points[0].y, sum / 2);
}

TEST(LawStudy, ArchitecturesApartOrPooled) {
  const records::Table table = Curve("a", 1, 0.001) + Curve("b", 1, 0.001);
  const LawStudyRequest apart{.forms = {LawForm::kCompute}, .options = {.replicates = 0}};
  LawStudyRequest pooled = apart;
  pooled.points.pooled = true;
  const LawStudy two = StudyLaws(table, apart).value(), one = StudyLaws(table, pooled).value();
  ASSERT_THAT(two.laws, SizeIs(2));
  EXPECT_EQ(two.laws[0].points.architecture, "a");
  EXPECT_EQ(two.laws[1].points.architecture, "b");
  ASSERT_THAT(one.laws, SizeIs(1));
  EXPECT_EQ(one.laws[0].points.architecture, "*");
  EXPECT_THAT(one.laws[0].points.points, SizeIs(16));
}

TEST(LawStudy, ScoresAgainstLosses) {
  records::Table table = Curve("a", 1, 0);
  for (records::Record& r : table) {
    const double loss = r.metrics["validation_loss"];
    Score(&r, "task", EvaluateLaw(LawForm::kSigmoid, std::vector<double>{0.2, 0.7, 6, 1.75}, loss, 0));
  }
  const LawStudy study = StudyLaws(table, {.options = {.replicates = 0}}).value();
  ASSERT_THAT(study.laws, SizeIs(3));
  EXPECT_EQ(study.laws[1].form, LawForm::kSigmoid);
  EXPECT_NEAR(Parameter(study.laws[1].fit->fits[0], "k"), 6, 0.1);
  EXPECT_EQ(study.laws[2].form, LawForm::kExponential);
  EXPECT_NEAR(study.laws[2].points.points[0].y, 1 - study.laws[1].points.points[0].y, 1e-12);
  EXPECT_THAT(StudyLaws(table, {.points = {.score = "tusk"}, .forms = {LawForm::kSigmoid}}).error().message,
              HasSubstr("tusk"));
}

TEST(LawStudy, WhatIsMissingIsSaid) {
  records::Table table = Curve("a", 1, 0.001, 3);
  table[1].metrics.erase("forward_flops");
  table[2].metrics["validation_loss"] = -1;
  const LawStudy study =
      StudyLaws(table, {.forms = {LawForm::kCompute, LawForm::kParametersTokens}, .budget_flops = 1e18}).value();
  EXPECT_THAT(study.laws[0].refused, HasSubstr("needs 4 points at different sizes, and there are 1"));
  EXPECT_FALSE(study.laws[0].fit);
  EXPECT_FALSE(study.laws[1].refused.empty());
  std::vector<std::string> reasons;
  for (const LeftOut& one : study.left_out) reasons.push_back(one.cell + " " + one.measure);
  EXPECT_THAT(reasons, testing::IsSupersetOf({HasSubstr("c1-s0 flops"), HasSubstr("c2-s0 upstream")}));
  EXPECT_THAT(StudyLaws(table, {.budget_flops = -1}).error().message, HasSubstr("budget"));
  EXPECT_EQ(StudyLaws({}, {}).error().code, common::ErrorCode::kFailedPrecondition);
}

TEST(LawStudy, BudgetAndIsoFlop) {
  const LawStudy study =
      StudyLaws(
          Runs("a", 1, 0.0005),
          {.forms = {LawForm::kParametersTokens}, .budget_flops = 1e21, .isoflop = true, .options = {.replicates = 50}})
          .value();
  ASSERT_THAT(study.laws[0].allocations, SizeIs(2));
  const Allocation truth = *ComputeOptimal(kLawTruth, 1e21);
  for (const StudiedAllocation& one : study.laws[0].allocations) {
    ASSERT_TRUE(one.result) << one.refused;
    EXPECT_NEAR(std::log(one.result->at.parameters / truth.parameters), 0, 0.2);
    EXPECT_TRUE(one.result->parameters);
  }
  ASSERT_THAT(study.isoflop, SizeIs(1));
  EXPECT_TRUE(study.isoflop[0].result);
  const common::Json json = ToJson(study);
  EXPECT_EQ(json["laws"][0]["allocations"].size(), 2u);
  EXPECT_EQ(json["laws"][0]["points"].size(), 36u);
}

TEST(LawForecast, LawsStandInOneTableWithTheLine) {
  const BacktestStudy study = StudyBacktests(Curve("a", 1, 1e-5), {}).value();
  const auto error_of = [&](const std::string& form) {
    for (const ForecastErrors& errors : study.errors)
      if (errors.axes == "F,U" && errors.form == form) return errors;
    return ForecastErrors{};
  };
  EXPECT_EQ(error_of("line").asked, 1);
  EXPECT_LT(*error_of("compute").median, 1e-3);
  EXPECT_GT(*error_of("line").median, 0.02);  // a straight line misses where the truth levels off
  EXPECT_EQ(study.errors.front().axes, "F,U");
  EXPECT_THAT(study.errors.front().form, testing::StartsWith("compute"));  // the best first
}

TEST(LawForecast, TransformsAreUndone) {
  for (const Transform transform : {Transform::kSemilog, Transform::kLoglog}) {
    BacktestStudyRequest request;
    request.slopes.slopes.transform = transform;
    request.slopes.axes = AxisPair{};
    request.forms = {"compute"};
    const BacktestStudy study = StudyBacktests(Curve("a", 1, 1e-5), request).value();
    ASSERT_THAT(study.forecasts, SizeIs(1));
    ASSERT_TRUE(study.forecasts[0].forecast) << study.forecasts[0].refused;
    EXPECT_NEAR(*study.forecasts[0].forecast, *study.forecasts[0].measured, 1e-3);
    EXPECT_LT(*study.forecasts[0].measured, 3);  // nats, whatever the transform
  }
}

TEST(LawForecast, TwoSizesAreAskedForTheMostCompute) {
  BacktestStudyRequest request;
  request.forms = {"parameters_tokens"};
  const BacktestStudy study = StudyBacktests(Runs("a", 1, 0.0005), request).value();
  ASSERT_THAT(study.forecasts, SizeIs(2));
  EXPECT_EQ(study.forecasts[0].axes, "ND,U");
  EXPECT_EQ(study.forecasts[0].form, "parameters_tokens-huber");
  EXPECT_EQ(study.forecasts[0].fitted, 35);
  EXPECT_LT(std::abs(*study.forecasts[0].relative_error), 0.01);
  EXPECT_THAT(ToJson(study)["errors"], SizeIs(2));
}

TEST(LawForecast, RefusalsAndUnknownForms) {
  BacktestStudyRequest request;
  request.forms = {"compute"};
  const BacktestStudy study = StudyBacktests(Curve("a", 2, 0.01, 3), request).value();
  EXPECT_THAT(study.forecasts, SizeIs(3));
  for (const StudiedForecast& one : study.forecasts)
    EXPECT_THAT(one.refused, HasSubstr("needs 4 points at different sizes, and there are 2"));
  request.forms = {"parabola"};
  EXPECT_THAT(StudyBacktests(Curve("a", 2, 0.01), request).error().message,
              testing::AllOf(HasSubstr("parabola"), HasSubstr("compute-huber")));
}

TEST(LawSuggest, SpendsTheBudgetWhereTheExponentIsLearnt) {
  const LawSuggestResult result =
      SuggestForLaws(Curve("a", 2, 0.003), {.budget_flops = 2e15, .simulations = 300}).value();
  ASSERT_THAT(result.exponents, SizeIs(1));
  EXPECT_NEAR(*result.exponents[0].value, 0.2, 0.05);
  EXPECT_LT(*result.exponents[0].half_after, *result.exponents[0].half_now);
  EXPECT_LE(result.flops, 2e15);
  EXPECT_FALSE(result.cells.empty());
  std::set<std::pair<std::string, uint64_t>> seen;
  for (const SuggestedCell& cell : result.cells) {
    EXPECT_GE(cell.seed, 2u);
    EXPECT_TRUE(seen.insert({cell.size, cell.seed}).second);
  }
  ASSERT_THAT(result.new_sizes, SizeIs(1));
  EXPECT_NEAR(result.new_sizes[0].x, 1e10 * std::pow(5.0, 8), 1e13);
}

// The half width that was expected is the one that is found when the runs are made.
TEST(LawSuggest, TheSimulatedWidthIsThatOfNewData) {
  const LawSuggestResult result =
      SuggestForLaws(Curve("a", 2, 0.003), {.budget_flops = 1, .simulations = 2000}).value();
  EXPECT_THAT(result.cells, IsEmpty());
  std::vector<double> alphas;
  std::mt19937_64 generator(9);
  std::normal_distribution<double> normal;
  for (int set = 0; set < 400; ++set) {
    std::vector<LawPoint> points;
    for (int i = 0; i < 8; ++i)
      for (int seed = 0; seed < 2; ++seed) {
        const double c = 1e10 * std::pow(5.0, i);
        points.push_back({c, 0, (1.5 + 30 * std::pow(c, -0.2)) * std::exp(0.003 * normal(generator))});
      }
    alphas.push_back(
        FitLaw(LawForm::kCompute, points, {.replicates = 0, .threads = 1}).value().fits.back().Parameters()[2]);
  }
  const Range range = PercentileInterval(alphas, 0.95);
  EXPECT_NEAR(*result.exponents[0].half_now / ((range.high - range.low) / 2), 1, 0.35);  // its noise is estimated
}

TEST(LawSuggest, RefusesWhatItCannotPlan) {
  const records::Table table = Curve("a", 2, 0.003);
  EXPECT_THAT(SuggestForLaws(table, {.form = LawForm::kBroken, .budget_flops = 1}).error().message,
              HasSubstr("compute and parameters_tokens"));
  EXPECT_THAT(SuggestForLaws(table, {.budget_flops = 0}).error().message, HasSubstr("budget"));
  EXPECT_THAT(SuggestForLaws(table, {.architectures = {"b"}, .budget_flops = 1}).error().message, HasSubstr("'b'"));
  EXPECT_THAT(SuggestForLaws(Curve("a", 2, 0.003, 3), {.budget_flops = 1}).error().message,
              HasSubstr("no law to narrow"));
}

}  // namespace
}  // namespace allometry::analysis
