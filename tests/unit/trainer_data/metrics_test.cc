#include "worker/trainer/tasks/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/sha256.h"
#include "worker/trainer/data/random.h"
#include "worker/trainer/tasks/answer_text.h"

namespace allometry::trainer {
namespace {

using common::Json;
using Labels = std::vector<int32_t>;
using Values = std::vector<double>;
using LongIds = std::vector<int64_t>;
using Texts = std::vector<std::string>;

// ---- By hand

TEST(Metrics, AccuracyCountsUnparsedAsWrong) {
  EXPECT_DOUBLE_EQ(Accuracy(Labels{0, 1, 2, 1}, Labels{0, 1, -1, 2}), 0.5);
  EXPECT_EQ(Accuracy(Labels{3}, Labels{3}), 1);
  EXPECT_EQ(Accuracy(Labels{0, 1}, Labels{-1, -1}), 0);
  EXPECT_EQ(CountUnparsed(Labels{0, -1, 1, -1}), 2);
  EXPECT_EQ(CountUnparsed({}), 0);
}

TEST(Metrics, BinaryF1) {
  // Two hits, one false alarm, one miss.
  EXPECT_DOUBLE_EQ(BinaryF1(Labels{1, 1, 1, 0, 0}, Labels{1, 1, 0, 1, 0}), 2.0 * 2 / (2 * 2 + 1 + 1));
  EXPECT_DOUBLE_EQ(BinaryF1(Labels{1, 1, 1, 0, 0}, Labels{1, 1, 0, 1, 0}, 0), 2.0 * 1 / (2 * 1 + 1 + 1));
  EXPECT_EQ(BinaryF1(Labels{0, 0}, Labels{0, 0}), 0) << "0 / 0: nothing positive in either";
  EXPECT_EQ(BinaryF1(Labels{1, 1}, Labels{1, 1}), 1);
}

TEST(Metrics, AnUnparsedAnswerIsTheOppositeOfTheGoldLabelForF1) {
  const Labels gold = {1, 1, 0, 0};
  EXPECT_DOUBLE_EQ(BinaryF1(gold, Labels{1, -1, 0, -1}), 2.0 / (2 + 1 + 1)) << "a miss and a false alarm";
  EXPECT_EQ(BinaryF1(gold, Labels{1, -1, 0, -1}), BinaryF1(gold, Labels{1, 0, 0, 1}));
  EXPECT_EQ(BinaryF1(gold, Labels(4, -1)), 0);
}

TEST(Metrics, MacroF1CountsEveryClassOnce) {
  // Class 0: 1 hit of 2, no false alarm: 2/3. Class 1: 1 hit, a false alarm: 2/3. Class 2: 1.
  EXPECT_DOUBLE_EQ(MacroF1(Labels{0, 0, 1, 2, 2, 2}, Labels{0, 1, 1, 2, 2, 2}, 3), (2.0 / 3 + 2.0 / 3 + 1) / 3);
  EXPECT_DOUBLE_EQ(MacroF1(Labels{0, 1}, Labels{0, 1}, 3), 2.0 / 3) << "a class that does not occur has F1 0";
  EXPECT_DOUBLE_EQ(MacroF1(Labels{0, 1, 1}, Labels{0, 1, -1}, 2), (1 + 2.0 / 3) / 2) << "a miss, and no false alarm";
  EXPECT_EQ(MacroF1(Labels{0, 1, 2}, Labels(3, -1), 3), 0);
}

TEST(Metrics, MatthewsCorrelation) {
  // TP 2, TN 1, FP 1, FN 1: (2 * 1 - 1 * 1) / sqrt(3 * 3 * 2 * 2).
  EXPECT_DOUBLE_EQ(MatthewsCorrelation(Labels{1, 1, 1, 0, 0}, Labels{1, 1, 0, 1, 0}), 1.0 / 6);
  EXPECT_EQ(MatthewsCorrelation(Labels{0, 1, 1}, Labels{0, 1, 1}), 1);
  EXPECT_EQ(MatthewsCorrelation(Labels{0, 1, 1}, Labels{1, 0, 0}), -1);
  EXPECT_EQ(MatthewsCorrelation(Labels{0, 1, 1}, Labels{1, 1, 1}), 0) << "constant answers";
  EXPECT_EQ(MatthewsCorrelation(Labels{1, 1, 1}, Labels{0, 1, 1}), 0) << "one class only";
  EXPECT_EQ(MatthewsCorrelation(Labels{1}, Labels{1}), 0) << "one example";
}

TEST(Metrics, UnparsedIsAThirdClassForMatthews) {
  // s = 4, c = 2, t = (2, 2), p = (1, 1, and 2 unparsed): (8 - 4) / sqrt((16 - 6) (16 - 8)).
  EXPECT_DOUBLE_EQ(MatthewsCorrelation(Labels{0, 0, 1, 1}, Labels{0, -1, 1, -1}), 4 / std::sqrt(80.0));
  EXPECT_EQ(MatthewsCorrelation(Labels{0, 0, 1, 1}, Labels(4, -1)), 0) << "all unparsed is constant";
}

TEST(Metrics, MultiRcScoresOptionsAndWholeQuestions) {
  const Labels gold = {1, 0, 1, 0, 1}, predicted = {1, 0, 1, 1, -1};
  const LongIds question = {7, 7, 2, 7, 5};  // 7 has one wrong option, 2 is right, 5 unparsed
  const std::vector<int8_t> marks = QuestionMarks(gold, predicted, question);
  EXPECT_EQ(marks, (std::vector<int8_t>{0, -1, 1, -1, 0}));
  EXPECT_DOUBLE_EQ(QuestionExactMatch(marks), 1.0 / 3);
  EXPECT_DOUBLE_EQ(BinaryF1(gold, predicted), 4.0 / 6);
  EXPECT_EQ(QuestionExactMatch(QuestionMarks(Labels{0}, Labels{0}, LongIds{-1})), 1) << "one example";
  // A question drawn twice weighs twice: 2 and 7, 7.
  EXPECT_DOUBLE_EQ(QuestionExactMatch(Select(marks, LongIds{2, 0, 1, 3, 0, 1, 3})), 1.0 / 3);
}

TEST(Metrics, AverageRanksShareTies) {
  EXPECT_EQ(AverageRanks(Values{3, 1, 3, 2, 3}), (Values{4, 1, 4, 2, 4}));
  EXPECT_EQ(AverageRanks(Values{5, 5}), (Values{1.5, 1.5}));
  EXPECT_EQ(AverageRanks(Values{-0.0, 0.0}), (Values{1.5, 1.5}));
  EXPECT_TRUE(AverageRanks({}).empty());
}

TEST(Metrics, Correlations) {
  EXPECT_DOUBLE_EQ(PearsonCorrelation(Values{1, 2, 3}, Values{2, 4, 6}), 1);
  EXPECT_DOUBLE_EQ(PearsonCorrelation(Values{1, 2, 3}, Values{3, 2, 1}), -1);
  // Deviations (-1, 0, 1) and (-1, 1, 0): 1 / 2.
  EXPECT_DOUBLE_EQ(PearsonCorrelation(Values{1, 2, 3}, Values{1, 3, 2}), 0.5);
  EXPECT_DOUBLE_EQ(SpearmanCorrelation(Values{1, 2, 3}, Values{1, 1000, 100}), 0.5);
  // Ranks (1, 2.5, 2.5, 4) and (1.5, 1.5, 3, 4): deviations give 3.75 / 4.5.
  EXPECT_DOUBLE_EQ(SpearmanCorrelation(Values{1, 2, 2, 3}, Values{0, 0, 1, 2}), 3.75 / 4.5);
}

TEST(Metrics, ConstantSidesCorrelateWithNothing) {
  // The mean of three times 0.1 is not 0.1.
  EXPECT_EQ(PearsonCorrelation(Values{0, 1, 5}, Values{0.1, 0.1, 0.1}), 0);
  EXPECT_EQ(PearsonCorrelation(Values{0.1, 0.1, 0.1}, Values{0, 1, 5}), 0);
  EXPECT_EQ(PearsonCorrelation(Values{0.1, 0.1, 0.1}, Values{0.1, 0.1, 0.1}), 0);
  EXPECT_EQ(SpearmanCorrelation(Values{0, 1, 5}, Values{-1, -1, -1}), 0) << "all unparsable";
  EXPECT_EQ(PearsonCorrelation(Values{2}, Values{3}), 0) << "one example";
  EXPECT_EQ(PearsonCorrelation(Values{0, 1}, Values{0, 1e-300}), 0) << "as good as constant";
}

TEST(Metrics, NormalisesAnswers) {
  EXPECT_EQ(NormalizeAnswer("The  Cat,\tsat on\na MAT!"), "cat sat on mat");
  EXPECT_EQ(NormalizeAnswer("An the a"), "");
  EXPECT_EQ(NormalizeAnswer("theatre another"), "theatre another") << "whole words only";
  EXPECT_EQ(NormalizeAnswer("don't re-enter U.S.A."), "dont reenter usa") << "punctuation leaves no blank";
  EXPECT_EQ(NormalizeAnswer("A.M."), "am") << "punctuation goes before articles";
  EXPECT_EQ(NormalizeAnswer("!?_"), "");
  EXPECT_EQ(NormalizeAnswer(""), "");
}

TEST(Metrics, NormalisesUnicode) {
  EXPECT_EQ(NormalizeAnswer("ÉCOLE Œuvre Ÿ ŁÓDŹ"), "école œuvre ÿ łódź");
  EXPECT_EQ(NormalizeAnswer("ΑΘΉΝΑ МОСКВА Ёж"), "αθήνα москва ёж");
  EXPECT_EQ(NormalizeAnswer("l’a — “The End”"), "l’ — “ end”") << "other punctuation stays and bounds words";
  EXPECT_EQ(NormalizeAnswer("à ça ªa"), "à ça ªa") << "letters do not";
  EXPECT_EQ(NormalizeAnswer("a\u00A0b\u3000c\u2009\u2028d"), "b c d") << "blanks beyond ASCII";
  EXPECT_EQ(NormalizeAnswer("中a文 中 the 文"), "中a文 中 文");
  EXPECT_EQ(NormalizeAnswer("😀 A 😀"), "😀 😀");
}

TEST(Metrics, BytesThatAreNotUtf8BecomeReplacementCharacters) {
  EXPECT_EQ(NormalizeAnswer("x\xFF\xC3"), "x\uFFFD\uFFFD");
  EXPECT_EQ(NormalizeAnswer("\xE4\xB8 a"), "\uFFFD\uFFFD");
  EXPECT_EQ(LowerUtf8("\xC0\xAF"), "\uFFFD\uFFFD") << "overlong";
  EXPECT_EQ(LowerUtf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD") << "a surrogate";
  EXPECT_EQ(LowerUtf8("\xF5\x80\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD") << "beyond U+10FFFF";
  EXPECT_EQ(LowerUtf8("\xF4\x8F\xBF\xBF"), "\U0010FFFF");
}

TEST(Metrics, LowerCaseOfSigmas) {
  EXPECT_EQ(LowerUtf8("ΟΔΟΣ"), "οδος");
  EXPECT_EQ(LowerUtf8("ΣΟΣ. Σ"), "σος. σ");
  EXPECT_EQ(LowerUtf8("ΟΣ'Α ΟΣ' Ο'Σ 1Σ"), "οσ'α ος' ο'ς 1σ");
  EXPECT_EQ(LowerUtf8("İ"), "i\u0307");
}

void ExpectAnswerScore(const AnswerScore& score, double exact_match, double f1) {
  EXPECT_EQ(score.exact_match, exact_match);
  EXPECT_DOUBLE_EQ(score.f1, f1);
}

TEST(Metrics, AnswersAreScoredByTheirBestReferences) {
  ExpectAnswerScore(ScoreAnswer("the Cat", Texts{"dog", "a cat!"}), 1, 1);
  // Two of the three words here and of the four there.
  ExpectAnswerScore(ScoreAnswer("big black cat", Texts{"black cat sat down"}), 0, 2 * 2 / 7.0);
  ExpectAnswerScore(ScoreAnswer("cat cat", Texts{"cat"}), 0, 2 * 1 / 3.0);
  ExpectAnswerScore(ScoreAnswer("cat", Texts{"dog"}), 0, 0);
}

TEST(Metrics, EmptyAnswers) {
  ExpectAnswerScore(ScoreAnswer("", Texts{"cat"}), 0, 0);
  ExpectAnswerScore(ScoreAnswer("the", Texts{"an"}), 1, 0);  // both empty: no common word
  ExpectAnswerScore(ScoreAnswer("cat", Texts{""}), 0, 0);
}

TEST(Metrics, RefusesWhatNoReaderMayHandOver) {
  const Labels one = {1}, two = {0, 1};
  EXPECT_THROW(Accuracy({}, {}), std::invalid_argument);
  EXPECT_THROW(Accuracy(one, two), std::invalid_argument);
  EXPECT_THROW(Accuracy(Labels{-1}, one), std::invalid_argument) << "gold must be a label";
  EXPECT_THROW(BinaryF1(one, Labels{2}), std::invalid_argument);
  EXPECT_THROW(BinaryF1(one, one, 2), std::invalid_argument);
  EXPECT_THROW(MacroF1(Labels{3}, one, 3), std::invalid_argument);
  EXPECT_THROW(MatthewsCorrelation(one, Labels{-2}), std::invalid_argument);
  EXPECT_THROW(QuestionMarks(two, two, LongIds{1}), std::invalid_argument);
  EXPECT_THROW(QuestionExactMatch(std::vector<int8_t>{-1}), std::invalid_argument);
  EXPECT_THROW(PearsonCorrelation({}, {}), std::invalid_argument);
  EXPECT_THROW(SpearmanCorrelation(Values{1, 2}, Values{1, std::nan("")}), std::invalid_argument);
  EXPECT_THROW(PearsonCorrelation(Values{1, 2}, Values{1, std::numeric_limits<double>::infinity()}),
               std::invalid_argument);
  EXPECT_THROW(ScoreAnswer("x", {}), std::invalid_argument);
  EXPECT_THROW(BootstrapErrorOfMean(Values{1, 2}, LongIds{1}), std::invalid_argument);
  EXPECT_THROW(BootstrapErrorOfMean({}, {}), std::invalid_argument);
  EXPECT_THROW(BootstrapErrorOfMean(Values{1, 2}, {}, {.resamples = 1}), std::invalid_argument);
}

// ---- Bootstrap

Values RandomBits(size_t n, double share) {
  Values values;
  for (size_t i = 0; i < n; ++i) values.push_back(KeyedRandom(11, 0, i).Below(1000) < share * 1000);
  return values;
}

double MeanOf(const Values& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double DeviationOf(const Values& values) {
  const double mean = MeanOf(values);
  double squares = 0;
  for (double v : values) squares += (v - mean) * (v - mean);
  return std::sqrt(squares / static_cast<double>(values.size()));
}

TEST(Bootstrap, OfAMeanIsTheStandardErrorOfTheMean) {
  const Values values = RandomBits(400, 0.3);
  const double expected = DeviationOf(values) / std::sqrt(400);
  // With 4,000 resamples the estimate itself has a relative error of 1 / sqrt(8000); five of them.
  EXPECT_NEAR(*BootstrapErrorOfMean(values, {}, {.resamples = 4000, .seed = 3}), expected, expected * 0.056);
}

TEST(Bootstrap, DrawsWholeGroups) {
  // 40 passages of ten questions each that are all right or all wrong are worth 40 examples and not 400.
  const Values passages = RandomBits(40, 0.5);
  Values values;
  LongIds groups;
  for (int64_t i = 0; i < 400; ++i) {
    groups.push_back(i % 40);
    values.push_back(passages[static_cast<size_t>(i % 40)]);
  }
  const BootstrapOptions options = {.resamples = 500, .seed = 9};
  EXPECT_NEAR(*BootstrapErrorOfMean(values, groups, options), *BootstrapErrorOfMean(passages, {}, options), 1e-12);
  const auto error = BootstrapError(400, groups,
                                    [&](std::span<const int64_t> drawn) {
                                      EXPECT_EQ(drawn.size(), 400u);
                                      for (size_t i = 0; i < drawn.size(); ++i) {
                                        EXPECT_EQ(drawn[i] % 40, drawn[i - i % 10] % 40) << "ten of one passage";
                                        EXPECT_EQ(drawn[i] / 40, static_cast<int64_t>(i % 10)) << "in order";
                                      }
                                      return 0.0;
                                    },
                                    {.resamples = 2});
  EXPECT_EQ(error, 0);
}

TEST(Bootstrap, MeansAgreeWithTheGeneralForm) {
  const Values values = RandomBits(123, 0.7);
  LongIds groups;
  for (size_t i = 0; i < values.size(); ++i) groups.push_back(static_cast<int64_t>(i * i % 31));
  const auto mean = [&](std::span<const int64_t> drawn) { return MeanOf(Select(values, drawn)); };
  for (const LongIds& ids : {LongIds{}, groups})
    EXPECT_NEAR(*BootstrapErrorOfMean(values, ids, {.seed = 4}), *BootstrapError(123, ids, mean, {.seed = 4}), 1e-13);
}

TEST(Bootstrap, IsAFunctionOfTheSeed) {
  const Values values = RandomBits(50, 0.5);
  EXPECT_EQ(*BootstrapErrorOfMean(values, {}, {.seed = 1}), *BootstrapErrorOfMean(values, {}, {.seed = 1}));
  EXPECT_NE(*BootstrapErrorOfMean(values, {}, {.seed = 1}), *BootstrapErrorOfMean(values, {}, {.seed = 2}));
}

TEST(Bootstrap, FewerThanTwoGroupsGiveNoEstimate) {
  EXPECT_FALSE(BootstrapErrorOfMean(Values{1}, {}).has_value());
  EXPECT_FALSE(BootstrapErrorOfMean(Values{1, 0, 1}, LongIds{8, 8, 8}).has_value());
  EXPECT_EQ(BootstrapErrorOfMean(Values{1, 1}, {}), 0) << "two that agree";
}

// ---- Against tests/parity/metrics_cases.py, which says where the values are from

constexpr double kTolerance = 1e-12;

class MetricsCases : public ::testing::Test {
 protected:
  static const Json& Cases(const char* section) {
    static const Json cases = *common::ReadJsonFile(ALLOMETRY_SOURCE_DIR "/tests/unit/trainer_data/metrics_cases.json");
    return cases.at(section);
  }
  static void ExpectScore(double value, const Json& expected, const char* score) {
    EXPECT_NEAR(value, expected.at(score).get<double>(), kTolerance) << score;
  }
  static void ExpectScore(const std::optional<double>& value, const Json& expected, const char* score) {
    ASSERT_EQ(value.has_value(), !expected.at(score).is_null()) << score;
    if (value) ExpectScore(*value, expected, score);
  }
};

TEST_F(MetricsCases, Labels) {
  for (const Json& c : Cases("labels")) {
    SCOPED_TRACE(c.at("name").get<std::string>());
    const auto gold = c.at("gold").get<Labels>(), predicted = c.at("predicted").get<Labels>();
    const auto classes = c.at("classes").get<int32_t>();
    const Json& expected = c.at("expected");
    ExpectScore(Accuracy(gold, predicted), expected, "accuracy");
    ExpectScore(MacroF1(gold, predicted, classes), expected, "f1_macro");
    ExpectScore(MatthewsCorrelation(gold, predicted, classes), expected, "matthews");
    if (classes != 2) continue;
    ExpectScore(BinaryF1(gold, predicted), expected, "f1");
    ExpectScore(BinaryF1(gold, predicted, 0), expected, "f1_of_0");
  }
}

TEST_F(MetricsCases, Correlations) {
  for (const Json& c : Cases("correlations")) {
    SCOPED_TRACE(c.at("name").get<std::string>());
    const auto gold = c.at("gold").get<Values>(), predicted = c.at("predicted").get<Values>();
    ExpectScore(PearsonCorrelation(gold, predicted), c.at("expected"), "pearson");
    ExpectScore(SpearmanCorrelation(gold, predicted), c.at("expected"), "spearman");
  }
}

TEST_F(MetricsCases, Texts) {
  for (const Json& c : Cases("texts")) {
    const std::string text = c.at("text");
    EXPECT_EQ(LowerUtf8(text), c.at("lower").get<std::string>());
    EXPECT_EQ(NormalizeAnswer(text), c.at("normalised").get<std::string>()) << text;
  }
}

TEST_F(MetricsCases, Answers) {
  for (const Json& c : Cases("answers")) {
    SCOPED_TRACE(c.dump());
    const AnswerScore score = ScoreAnswer(c.at("prediction").get<std::string>(), c.at("references").get<Texts>());
    ExpectScore(score.exact_match, c.at("expected"), "exact_match");
    ExpectScore(score.f1, c.at("expected"), "f1");
  }
}

TEST_F(MetricsCases, Questions) {
  for (const Json& c : Cases("questions")) {
    const auto gold = c.at("gold").get<Labels>(), predicted = c.at("predicted").get<Labels>();
    ExpectScore(BinaryF1(gold, predicted), c.at("expected"), "f1a");
    ExpectScore(QuestionExactMatch(QuestionMarks(gold, predicted, c.at("question").get<LongIds>())), c.at("expected"),
                "exact_match");
  }
}

TEST_F(MetricsCases, Bootstraps) {
  for (const Json& c : Cases("bootstraps")) {
    const auto values = c.at("values").get<Values>();
    const auto groups = c.at("groups").get<LongIds>();
    const BootstrapOptions options = {.resamples = c.at("resamples").get<int32_t>(),
                                      .seed = c.at("seed").get<uint64_t>()};
    const auto largest = [&](std::span<const int64_t> drawn) { return std::ranges::max(Select(values, drawn)); };
    ExpectScore(BootstrapErrorOfMean(values, groups, options), c.at("expected"), "mean");
    ExpectScore(BootstrapError(static_cast<int64_t>(values.size()), groups, largest, options), c.at("expected"),
                "largest");
  }
}

std::string Utf8(char32_t c) {
  const auto tail = [&](int shift) { return static_cast<char>(0x80 | (c >> shift & 0x3F)); };
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xC0 | c >> 6), tail(0)};
  if (c < 0x10000) return {static_cast<char>(0xE0 | c >> 12), tail(6), tail(0)};
  return {static_cast<char>(0xF0 | c >> 18), tail(12), tail(6), tail(0)};
}

// Every character there is, so that no entry of the tables goes untested.
TEST_F(MetricsCases, Characters) {
  std::string all, words;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    if (c > 0) all += '\n';
    all += Utf8(c);
    words += IsWordCharacter(c) ? '1' : '0';
  }
  EXPECT_EQ(common::Sha256Hex(LowerUtf8(all)), Cases("unicode").at("lower_sha256").get<std::string>());
  EXPECT_EQ(common::Sha256Hex(words), Cases("unicode").at("words_sha256").get<std::string>());
}

}  // namespace
}  // namespace allometry::trainer
