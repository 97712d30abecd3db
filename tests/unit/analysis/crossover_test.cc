#include "analysis/crossover.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/unit/analysis/study.h"

namespace allometry::analysis {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

// Sizes at x = first, first + 1, ...; two seeds at truth(x) -+ noise.
template <typename TruthOfX>
std::vector<SizeSamples> TwoSeeds(double first, int sizes, double noise, TruthOfX truth) {
  std::vector<SizeSamples> out;
  for (int i = 0; i < sizes; ++i) {
    const double x = first + i, y = truth(x);
    out.push_back({{x, x}, {y - noise, y + noise}});
  }
  return out;
}

// Fieller's interval by hand. Both have x = -1, 0, 1 and n = 2 seeds at -+ s, so the pooled variance is 2 s^2, with 3
// degrees each and, the variances being equal, 6 in all. var D(x) = 2 (2 s^2 / 2) (1/3 + x^2 / 2); with D = d0 + d1 x
// the ends solve (d1^2 - q/2) x^2 + 2 d0 d1 x + d0^2 - q/3 = 0, q = 2 t^2 s^2.
TEST(Crossover, IsFiellersIntervalInClosedForm) {
  const double s = 0.1, d0 = 0.2, d1 = 1.0;
  const Crossover c = FindCrossover(TwoSeeds(-1, 3, s, [&](double x) { return d0 + d1 * x; }),
                                    TwoSeeds(-1, 3, s, [](double) { return 0; }), 0.95);
  const double t = TQuantile(0.95, 6), q = 2 * t * t * s * s;
  const double a = d1 * d1 - q / 2, b = d0 * d1, root = std::sqrt(b * b - a * (d0 * d0 - q / 3));
  EXPECT_EQ(c.verdict, "observed");
  ASSERT_THAT(c.bands, SizeIs(1));
  EXPECT_NEAR(*c.bands[0].low, (-b - root) / a, 1e-9);
  EXPECT_NEAR(*c.bands[0].high, (-b + root) / a, 1e-9);
  ASSERT_THAT(c.at, SizeIs(1));
  EXPECT_NEAR(c.at[0], -0.2, 1e-12);
  EXPECT_EQ(c.ahead_below, "second");
  EXPECT_EQ(c.ahead_above, "first");
  EXPECT_EQ(c.basis, VarianceBasis::kSeeds);
}

// The same quadratic with d1^2 < q/2: outside its roots lie the two rays.
TEST(Crossover, IsTwoRaysWhereTheSlopesAgreeAndTheLevelsDoNot) {
  const double s = 0.1, d0 = 2, d1 = 0.1;
  const Crossover c = FindCrossover(TwoSeeds(-1, 3, s, [&](double x) { return d0 + d1 * x; }),
                                    TwoSeeds(-1, 3, s, [](double) { return 0; }), 0.95);
  const double t = TQuantile(0.95, 6), q = 2 * t * t * s * s;
  const double a = d1 * d1 - q / 2, b = d0 * d1, root = std::sqrt(b * b - a * (d0 * d0 - q / 3));
  EXPECT_EQ(c.verdict, "no bounded crossover");
  ASSERT_THAT(c.bands, SizeIs(2));
  EXPECT_FALSE(c.bands[0].low);
  EXPECT_NEAR(*c.bands[0].high, (-b + root) / a, 1e-7);
  EXPECT_NEAR(*c.bands[1].low, (-b - root) / a, 1e-7);
  EXPECT_FALSE(c.bands[1].high);
  EXPECT_TRUE(c.at.empty()) << "no bare number where there is no bounded answer";
}

TEST(Crossover, IsEverythingWhereNothingDiffers) {
  const auto flat = [](double) { return 0.0; };
  const Crossover c =
      FindCrossover(TwoSeeds(0, 3, 0.1, [](double x) { return 0.01 * x; }), TwoSeeds(0, 3, 0.1, flat), 0.95);
  EXPECT_EQ(c.verdict, "no bounded crossover");
  ASSERT_THAT(c.bands, SizeIs(1));
  EXPECT_FALSE(c.bands[0].low || c.bands[0].high);
  const Crossover same = FindCrossover(TwoSeeds(0, 3, 0.1, flat), TwoSeeds(0, 3, 0.1, flat), 0.95);
  EXPECT_EQ(same.verdict, "no bounded crossover");
  ASSERT_THAT(same.bands, SizeIs(1));
}

TEST(Crossover, OutsideTheMeasuredRangesIsExtrapolated) {
  const auto first = TwoSeeds(0, 4, 0.01, [](double x) { return x; });
  const auto second = TwoSeeds(0, 4, 0.01, [](double x) { return 5 + 0.1 * (x - 5); });
  const Crossover c = FindCrossover(first, second, 0.95);
  EXPECT_EQ(c.verdict, "extrapolated");
  EXPECT_NEAR(c.at[0], 5, 1e-9);
  EXPECT_THAT(c.reason, HasSubstr("straight"));
}

TEST(Crossover, ItsEndsAreWhereTheDifferenceIsTStandardErrors) {
  std::mt19937_64 generator(4);
  std::normal_distribution<double> normal;
  int intervals = 0;
  for (int round = 0; round < 200; ++round) {
    std::vector<SizeSamples> first(4), second(3);
    for (size_t i = 0; i < 4; ++i) {
      for (int s = 0; s < 3; ++s) {
        first[i].x.push_back(double(i));
        first[i].y.push_back(double(i) + (1 + double(i)) * 0.3 * normal(generator));
        if (i < 3) second[i].x.push_back(1 + double(i));
        if (i < 3) second[i].y.push_back(2.2 + 0.3 * normal(generator));
      }
    }
    const Crossover c = FindCrossover(first, second, 0.95);
    if (c.curved) continue;  // by chance; these are quadratics
    const SizeCurve one = *SizeCurve::Fit(first, 1, c.basis), two = *SizeCurve::Fit(second, 1, c.basis);
    for (const CrossoverBand& band : c.bands) {
      for (const auto& end : {band.low, band.high}) {
        if (!end) continue;
        const CurveValue d = Minus(one.At(*end), two.At(*end));
        EXPECT_NEAR(std::abs(d.value) / std::sqrt(d.variance) / TQuantile(0.95, d.degrees), 1, 1e-6);
      }
    }
    intervals += c.at.size() == 1;
    for (const double at : c.at) EXPECT_NEAR(one.At(at).value, two.At(at).value, 1e-9);
  }
  EXPECT_GT(intervals, 100);
}

TEST(Crossover, CurvesCrossAsQuadraticsInsideTheCommonRange) {
  const auto bent = [](double x) { return 1.2 * x - 0.1 * x * x; };
  const auto straight = [](double x) { return 0.5 + 0.55 * x; };
  const Crossover c = FindCrossover(TwoSeeds(0, 6, 0.01, bent), TwoSeeds(0, 6, 0.01, straight), 0.95);
  EXPECT_TRUE(c.curved);
  EXPECT_EQ(c.verdict, "observed");
  ASSERT_THAT(c.at, SizeIs(1));  // the other root, at 5.67, is outside
  EXPECT_NEAR(c.at[0], (0.65 - std::sqrt(0.65 * 0.65 - 0.2)) / 0.2, 1e-9);
}

TEST(Crossover, CurvesThatCrossTwiceGiveTwoBands) {
  const auto bent = [](double x) { return 1.2 * x - 0.1 * x * x; };
  const auto straight = [](double x) { return 0.5 + 0.55 * x; };
  const Crossover c = FindCrossover(TwoSeeds(0, 9, 0.005, bent), TwoSeeds(0, 9, 0.005, straight), 0.95);
  EXPECT_EQ(c.verdict, "observed");
  EXPECT_THAT(c.at, SizeIs(2));
  EXPECT_THAT(c.bands, SizeIs(2));
  EXPECT_EQ(c.ahead_above, "") << "not one side, but three";
}

TEST(Crossover, AnExtrapolatedCrossingOfCurvesIsRefused) {
  const auto bent = [](double x) { return 1.2 * x - 0.1 * x * x; };
  const Crossover outside =
      FindCrossover(TwoSeeds(0, 5, 0.01, bent), TwoSeeds(0, 5, 0.01, [](double x) { return 5 - 0.1 * x; }), 0.95);
  EXPECT_EQ(outside.verdict, "refused");
  EXPECT_THAT(outside.reason, HasSubstr("extrapolated"));
  EXPECT_TRUE(outside.at.empty());
  const Crossover apart =
      FindCrossover(TwoSeeds(0, 5, 0.01, bent), TwoSeeds(7, 5, 0.01, [](double x) { return x; }), 0.95);
  EXPECT_EQ(apart.verdict, "refused");
  EXPECT_THAT(apart.reason, HasSubstr("do not overlap"));
}

TEST(Crossover, ABandOfCurvesThatReachesAnEndIsNotBounded) {
  const auto bent = [](double x) { return 1.2 * x - 0.1 * x * x; };
  const auto nearly = [&](double x) { return bent(x) + 0.05 - 0.01 * x; };  // meet at 5
  const Crossover c = FindCrossover(TwoSeeds(0, 5, 0.02, bent), TwoSeeds(0, 5, 0.02, nearly), 0.95);
  EXPECT_EQ(c.verdict, "no bounded crossover");
  EXPECT_THAT(c.reason, HasSubstr("end of the common range"));
}

TEST(Crossover, OneSeedEverywhereRestsOnTheSizes) {
  std::vector<SizeSamples> first, second;
  for (int i = 0; i < 5; ++i) {
    first.push_back({{double(i)}, {i + (i % 2 ? 0.02 : -0.02)}});
    second.push_back({{double(i)}, {2 + (i % 2 ? -0.02 : 0.02)}});
  }
  const Crossover c = FindCrossover(first, second, 0.95);
  EXPECT_EQ(c.basis, VarianceBasis::kSizes);
  EXPECT_EQ(c.verdict, "observed");
  EXPECT_NEAR(c.at[0], 2, 0.05);
  const std::vector<SizeSamples> two_sizes(second.begin(), second.begin() + 2);
  EXPECT_EQ(FindCrossover(first, two_sizes, 0.95).verdict, "refused");
}

// Runs of two laws, loss = E + k (C / 1e9)^-alpha, over `decades` from 1e9 on.
struct LawOfRuns {
  double e, k, alpha;
  double LossAt(double flops) const { return e + k * std::pow(flops / 1e9, -alpha); }
};
constexpr LawOfRuns kLate{1.6, 1.7, 0.30},
    kEarly{2.0, 0.8, 0.45};  // cross 1.6465 decades after 1e9: kLate is ahead then

records::Table RunsOf(const std::string& name, const LawOfRuns& law, int sizes, double first_decade, double decades) {
  std::mt19937_64 generator(17 + name.size());
  std::normal_distribution<double> normal;
  records::Table table;
  for (int i = 0; i < sizes; ++i) {
    const double flops = 1e9 * std::pow(10.0, first_decade + decades * i / (sizes - 1));
    for (uint64_t seed = 0; seed < 3; ++seed)
      table.push_back(Cell(name, "z" + std::to_string(i), seed, flops, law.LossAt(flops) + 0.001 * normal(generator)));
  }
  return table;
}

TEST(Crossovers, CurvesThatDoNotMeetAreAskedForTheirLaws) {
  const records::Table table = RunsOf("late", kLate, 7, 0, 1.45) + RunsOf("early", kEarly, 7, 0, 1.45);
  for (const Transform transform : {Transform::kSemilog, Transform::kLoglog}) {
    const CrossoversResult result = Crossovers(table, {.slopes = {.transform = transform}}).value();
    const Crossover& c = result.crossovers[0];
    EXPECT_TRUE(c.curved);
    ASSERT_EQ(c.verdict, "extrapolated (law)") << c.reason;
    EXPECT_EQ(c.basis, VarianceBasis::kRuns);
    ASSERT_THAT(c.at, SizeIs(1));
    const double at = std::log10(ValueOfX(c.at[0], Axis::kFlops, transform));
    EXPECT_NEAR(at, 9 + 1.6465, 0.05);
    EXPECT_LT(*c.bands[0].low, c.at[0]);
    EXPECT_GT(*c.bands[0].high, c.at[0]);
    EXPECT_LE(std::log10(ValueOfX(*c.bands[0].low, Axis::kFlops, transform)), 9 + 1.6465);
    EXPECT_GE(std::log10(ValueOfX(*c.bands[0].high, Axis::kFlops, transform)), 9 + 1.6465);
    EXPECT_EQ(c.ahead_below, "early");
    EXPECT_EQ(c.ahead_above, "late");
    EXPECT_NEAR(c.laws->first[2], kLate.alpha, 0.05);
  }
}

// Each was measured on its own side of the crossing.
TEST(Crossovers, LawsAlsoAnswerWhereTheRangesDoNotOverlap) {
  const records::Table table = RunsOf("late", kLate, 7, 2.0, 1.4) + RunsOf("early", kEarly, 7, 0, 1.45);
  const Crossover c = Crossovers(table, {}).value().crossovers[0];
  EXPECT_FALSE(c.common_range);
  ASSERT_EQ(c.verdict, "extrapolated (law)") << c.reason;
  EXPECT_NEAR(c.at.at(0), 9 + 1.6465, 0.1) << "in the gap";
}

TEST(Crossovers, WithoutLawsTheRefusalSaysWhatWasMissing) {
  const records::Table few = RunsOf("late", kLate, 3, 0, 1.45) + RunsOf("early", kEarly, 3, 0, 1.45);
  const Crossover c = Crossovers(few, {}).value().crossovers[0];
  EXPECT_EQ(c.verdict, "refused");
  EXPECT_THAT(c.reason, HasSubstr("extrapolated from curved lines; nor is there a law of late"));
  EXPECT_FALSE(c.laws);
  // One curve above another everywhere: no law can make them meet.
  const records::Table apart = RunsOf("early", kEarly, 7, 0, 1.45) + RunsOf("worse", {2.3, 0.8, 0.45}, 7, 0, 1.45);
  const Crossover none = Crossovers(apart, {}).value().crossovers[0];
  EXPECT_NE(none.verdict, "extrapolated (law)");
  const Crossover seconds = Crossovers(few, {.axes = {Axis::kSeconds, Axis::kUpstream}}).value().crossovers[0];
  EXPECT_EQ(seconds.reason.find("law"), std::string::npos) << "laws are of compute or parameters";
}

TEST(Crossovers, OfAStudyAreNamedAndFlaggedAndSayWhoIsAhead) {
  const records::Table table =
      Grid("steep", {.sizes = 4, .level = 10, .slope = 0.9}) + Grid("flat", {.sizes = 4, .level = 7.1, .slope = 0.5});
  const CrossoversResult result = Crossovers(table, {}).value();
  ASSERT_THAT(result.crossovers, SizeIs(1));
  const Crossover& c = result.crossovers[0];
  EXPECT_EQ(c.first, "steep");
  EXPECT_EQ(c.verdict, "observed");
  EXPECT_NEAR(c.at[0], 7.25, 1e-9) << "10 - .9 x = 7.1 - .5 x";
  EXPECT_EQ(c.ahead_below, "flat");
  EXPECT_EQ(c.ahead_above, "steep");
  EXPECT_EQ(ValueOfX(c.at[0], Axis::kFlops, Transform::kSemilog), std::pow(10.0, c.at[0]));
}

TEST(Crossovers, NamedPairsAndTheirErrors) {
  const records::Table table = Grid("a", {}) + Grid("b", {.slope = 0.6}) + Grid("c", {.slope = 0.7});
  EXPECT_THAT(Crossovers(table, {}).value().crossovers, SizeIs(3));
  EXPECT_THAT(Crossovers(table, {.first = "b"}).value().crossovers, SizeIs(2));
  EXPECT_EQ(Crossovers(table, {.first = "c", .second = "a"}).value().crossovers[0].second, "a");
  EXPECT_EQ(Crossovers(table, {.first = "z"}).error().code, common::ErrorCode::kNotFound);
  EXPECT_EQ(Crossovers(table, {.first = "a", .second = "a"}).error().code, common::ErrorCode::kInvalidArgument);
  EXPECT_EQ(Crossovers(table, {.second = "a"}).error().code, common::ErrorCode::kInvalidArgument);
  EXPECT_EQ(Crossovers(Grid("a", {}), {}).error().code, common::ErrorCode::kFailedPrecondition);
}

TEST(Crossovers, DegenerateSlopesAreRefusedWithTheirReason) {
  records::Table table = Grid("one size", {.sizes = 1}) + Grid("good", {}) + Grid("equal costs", {}) +
                         Grid("equal seeds", {.noise = 0}) + Grid("lost", {});
  for (records::Record& r : table) {
    if (r.architecture == "equal costs") r.metrics["forward_flops"] = 1e6;
    if (r.architecture == "lost") r.metrics["validation_loss"] = NAN;
  }
  const CrossoversResult result = Crossovers(table, {.first = "good"}).value();
  ASSERT_THAT(result.crossovers, SizeIs(4));
  for (const Crossover& c : result.crossovers) {
    EXPECT_EQ(c.verdict, "refused") << c.second;
    EXPECT_THAT(c.reason, HasSubstr("slope of the second is refused")) << c.second;
    EXPECT_TRUE(c.bands.empty());
  }
  EXPECT_THAT(result.left_out, SizeIs(6));
}

TEST(Crossovers, AThousandArchitecturesAreTooManyForAllPairsAndFineForOne) {
  records::Table table;
  for (int i = 0; i < 1000; ++i)
    table = std::move(table) + Grid("a" + std::to_string(i), {.sizes = 2, .slope = 0.5 + 0.001 * i});
  EXPECT_THAT(Crossovers(table, {}).error().message, HasSubstr("name one"));
  EXPECT_THAT(Crossovers(table, {.first = "a7"}).value().crossovers, SizeIs(999));
}

TEST(Crossovers, AxesAreReadByLetterOrName) {
  EXPECT_EQ(ParseAxisPair("P,D").value(), (AxisPair{Axis::kParameters, Axis::kDownstream}));
  EXPECT_EQ(ParseAxisPair("upstream,downstream").value(), (AxisPair{Axis::kUpstream, Axis::kDownstream}));
  EXPECT_EQ(ParseAxisPair("").value(), AxisPair{});
  EXPECT_THAT(ParseAxisPair("U,F").error().message, HasSubstr("F,U F,D"));
}

}  // namespace
}  // namespace allometry::analysis
