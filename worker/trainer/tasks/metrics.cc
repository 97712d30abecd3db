#include "worker/trainer/tasks/metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "worker/trainer/data/random.h"
#include "worker/trainer/tasks/answer_text.h"

namespace allometry::trainer {

namespace {

void Require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

double Ratio(int64_t numerator, int64_t denominator) {
  return denominator == 0 ? 0 : static_cast<double>(numerator) / static_cast<double>(denominator);
}

void RequireLabels(std::span<const int32_t> gold, std::span<const int32_t> predicted, int32_t classes) {
  Require(!gold.empty() && gold.size() == predicted.size(), "a score needs as many answers as examples, at least one");
  Require(std::ranges::all_of(gold, [&](int32_t l) { return l >= 0 && l < classes; }), "a gold label is out of range");
  Require(std::ranges::all_of(predicted, [&](int32_t l) { return l >= kUnparsed && l < classes; }),
          "an answer is no label and not kUnparsed");
}

// How often each label is the gold one, the answer, and both; the answers' last entry counts the unparsed ones.
struct LabelCounts {
  std::vector<int64_t> gold, predicted, both;
};

LabelCounts CountLabels(std::span<const int32_t> gold, std::span<const int32_t> predicted, int32_t classes) {
  RequireLabels(gold, predicted, classes);
  const auto unparsed = static_cast<size_t>(classes);
  LabelCounts counts{.gold = std::vector<int64_t>(unparsed, 0),
                     .predicted = std::vector<int64_t>(unparsed + 1, 0),
                     .both = std::vector<int64_t>(unparsed, 0)};
  for (size_t i = 0; i < gold.size(); ++i) {
    const auto label = static_cast<size_t>(gold[i]);
    ++counts.gold[label];
    ++counts.predicted[predicted[i] == kUnparsed ? unparsed : static_cast<size_t>(predicted[i])];
    counts.both[label] += predicted[i] == gold[i];
  }
  return counts;
}

int64_t SumOfSquares(const std::vector<int64_t>& counts) {
  return std::inner_product(counts.begin(), counts.end(), counts.begin(), int64_t{0});
}

}  // namespace

int64_t CountUnparsed(std::span<const int32_t> predicted) { return std::ranges::count(predicted, kUnparsed); }

double Accuracy(std::span<const int32_t> gold, std::span<const int32_t> predicted) {
  RequireLabels(gold, predicted, INT32_MAX);
  int64_t right = 0;
  for (size_t i = 0; i < gold.size(); ++i) right += gold[i] == predicted[i];
  return Ratio(right, static_cast<int64_t>(gold.size()));
}

double BinaryF1(std::span<const int32_t> gold, std::span<const int32_t> predicted, int32_t positive) {
  RequireLabels(gold, predicted, 2);
  Require(positive == 0 || positive == 1, "the positive class is 0 or 1");
  // With two labels a wrong answer, and so an unparsed one, is the opposite label.
  int64_t true_positive = 0, wrong = 0;
  for (size_t i = 0; i < gold.size(); ++i) {
    true_positive += gold[i] == positive && predicted[i] == positive;
    wrong += gold[i] != predicted[i];
  }
  return Ratio(2 * true_positive, 2 * true_positive + wrong);
}

double MacroF1(std::span<const int32_t> gold, std::span<const int32_t> predicted, int32_t classes) {
  const LabelCounts counts = CountLabels(gold, predicted, classes);
  double sum = 0;
  // 2 TP + FP + FN of a class is how often it is the gold label plus how often it is the answer.
  for (size_t k = 0; k < counts.gold.size(); ++k)
    sum += Ratio(2 * counts.both[k], counts.gold[k] + counts.predicted[k]);
  return sum / classes;
}

double MatthewsCorrelation(std::span<const int32_t> gold, std::span<const int32_t> predicted, int32_t classes) {
  const LabelCounts counts = CountLabels(gold, predicted, classes);
  const auto n = static_cast<int64_t>(gold.size());
  const int64_t right = std::accumulate(counts.both.begin(), counts.both.end(), int64_t{0});
  // Unparsed is never a gold label and adds nothing here.
  const int64_t chance =
      std::inner_product(counts.gold.begin(), counts.gold.end(), counts.predicted.begin(), int64_t{0});
  const int64_t gold_spread = n * n - SumOfSquares(counts.gold);
  const int64_t predicted_spread = n * n - SumOfSquares(counts.predicted);
  if (gold_spread == 0 || predicted_spread == 0) return 0;
  return static_cast<double>(right * n - chance) /
         std::sqrt(static_cast<double>(gold_spread) * static_cast<double>(predicted_spread));
}

std::vector<int8_t> QuestionMarks(std::span<const int32_t> gold, std::span<const int32_t> predicted,
                                  std::span<const int64_t> question) {
  RequireLabels(gold, predicted, 2);
  Require(gold.size() == question.size(), "an answer option without a question");
  std::vector<int8_t> marks(gold.size(), -1);
  std::unordered_map<int64_t, size_t> first;
  for (size_t i = 0; i < gold.size(); ++i) {
    const auto [entry, is_new] = first.emplace(question[i], i);
    if (is_new) marks[i] = 1;
    if (gold[i] != predicted[i]) marks[entry->second] = 0;
  }
  return marks;
}

double QuestionExactMatch(std::span<const int8_t> marks) {
  const int64_t right = std::ranges::count(marks, 1), wrong = std::ranges::count(marks, 0);
  Require(right + wrong > 0, "an exact match needs at least one question");
  return Ratio(right, right + wrong);
}

// ---- Correlations

namespace {

void RequireValues(std::span<const double> values) {
  Require(std::ranges::all_of(values, [](double v) { return std::abs(v) < 1e100; }), "a value is not below 1e100");
}

// Compared directly: the mean of equal values may differ from them in its last digit.
bool IsConstant(std::span<const double> values) {
  return std::ranges::all_of(values, [&](double v) { return v == values.front(); });
}

std::vector<double> Centred(std::span<const double> values) {
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  std::vector<double> centred(values.begin(), values.end());
  for (double& v : centred) v -= mean;
  return centred;
}

double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

}  // namespace

double PearsonCorrelation(std::span<const double> gold, std::span<const double> predicted) {
  Require(!gold.empty() && gold.size() == predicted.size(), "a correlation needs as many answers as examples");
  RequireValues(gold);
  RequireValues(predicted);
  if (IsConstant(gold) || IsConstant(predicted)) return 0;
  const std::vector<double> x = Centred(gold), y = Centred(predicted);
  const double spread = std::sqrt(Dot(x, x)) * std::sqrt(Dot(y, y));
  return spread == 0 ? 0 : std::clamp(Dot(x, y) / spread, -1.0, 1.0);  // 0: values so small that squares vanish
}

double SpearmanCorrelation(std::span<const double> gold, std::span<const double> predicted) {
  RequireValues(gold);  // ranks need an order, which NaN has not
  RequireValues(predicted);
  return PearsonCorrelation(AverageRanks(gold), AverageRanks(predicted));
}

std::vector<double> AverageRanks(std::span<const double> values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, {}, [&](size_t i) { return values[i]; });
  std::vector<double> ranks(values.size());
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    // The tied ones would have the ranks begin + 1 … end.
    for (size_t i = begin; i < end; ++i) ranks[order[i]] = static_cast<double>(begin + 1 + end) / 2;
  }
  return ranks;
}

// ---- Free-text answers

namespace {

std::vector<std::string_view> SortedWords(std::string_view normalised) {
  std::vector<std::string_view> words;
  while (!normalised.empty()) {
    const size_t length = std::min(normalised.find(' '), normalised.size());
    words.push_back(normalised.substr(0, length));
    normalised.remove_prefix(std::min(length + 1, normalised.size()));
  }
  std::ranges::sort(words);
  return words;
}

double WordF1(std::string_view prediction, std::string_view reference) {
  const std::vector<std::string_view> a = SortedWords(prediction), b = SortedWords(reference);
  std::vector<std::string_view> common;
  std::ranges::set_intersection(a, b, std::back_inserter(common));
  return Ratio(2 * static_cast<int64_t>(common.size()), static_cast<int64_t>(a.size() + b.size()));
}

}  // namespace

AnswerScore ScoreAnswer(std::string_view prediction, std::span<const std::string> references) {
  Require(!references.empty(), "an answer needs at least one reference");
  const std::string answer = NormalizeAnswer(prediction);
  AnswerScore score;
  for (const std::string& reference : references) {
    const std::string right = NormalizeAnswer(reference);
    score.exact_match = std::max(score.exact_match, answer == right ? 1.0 : 0.0);
    score.f1 = std::max(score.f1, WordF1(answer, right));
  }
  return score;
}

// ---- Bootstrap

namespace {

// The examples of group g are members[offsets[g]] … members[offsets[g + 1] - 1]; groups in order of first appearance.
struct Groups {
  std::vector<int64_t> members;
  std::vector<size_t> offsets;
  uint32_t size() const { return static_cast<uint32_t>(offsets.size() - 1); }
  std::span<const int64_t> operator[](size_t g) const {
    return std::span(members).subspan(offsets[g], offsets[g + 1] - offsets[g]);
  }
};

Groups GroupExamples(int64_t examples, std::span<const int64_t> ids) {
  Require(examples >= 1 && (ids.empty() || std::cmp_equal(ids.size(), examples)),
          "a bootstrap needs a group an example");
  std::unordered_map<int64_t, size_t> numbers;
  std::vector<std::vector<int64_t>> lists;
  for (int64_t i = 0; i < examples; ++i) {
    const auto [entry, is_new] = numbers.emplace(ids.empty() ? i : ids[static_cast<size_t>(i)], lists.size());
    if (is_new) lists.emplace_back();
    lists[entry->second].push_back(i);
  }
  Groups groups{.offsets = {0}};
  for (const std::vector<int64_t>& list : lists) {
    groups.members.insert(groups.members.end(), list.begin(), list.end());
    groups.offsets.push_back(groups.members.size());
  }
  return groups;
}

// Calls `score(&random)` once a resample and returns the values' sample standard deviation (Welford 1962).
template <typename Score>
std::optional<double> SpreadOverResamples(const Groups& groups, const BootstrapOptions& options, const Score& score) {
  Require(options.resamples >= 2, "a bootstrap needs at least two resamples");
  if (groups.size() < 2) return std::nullopt;
  double mean = 0, squares = 0;
  for (int32_t r = 0; r < options.resamples; ++r) {
    KeyedRandom random(options.seed, static_cast<uint64_t>(r), 0);
    const double value = score(&random), off = value - mean;
    mean += off / (r + 1);
    squares += off * (value - mean);
  }
  return std::sqrt(squares / (options.resamples - 1));
}

}  // namespace

std::optional<double> BootstrapError(int64_t examples, std::span<const int64_t> groups, const IndexStatistic& statistic,
                                     const BootstrapOptions& options) {
  const Groups by_group = GroupExamples(examples, groups);
  std::vector<int64_t> drawn;
  return SpreadOverResamples(by_group, options, [&](KeyedRandom* random) {
    drawn.clear();
    for (uint32_t g = 0; g < by_group.size(); ++g) {
      const std::span<const int64_t> members = by_group[random->Below(by_group.size())];
      drawn.insert(drawn.end(), members.begin(), members.end());
    }
    return statistic(drawn);
  });
}

std::optional<double> BootstrapErrorOfMean(std::span<const double> values, std::span<const int64_t> groups,
                                           const BootstrapOptions& options) {
  const Groups by_group = GroupExamples(static_cast<int64_t>(values.size()), groups);
  struct Total {
    double sum = 0, count = 0;
  };
  std::vector<Total> totals(by_group.size());
  for (size_t g = 0; g < totals.size(); ++g) {
    for (int64_t i : by_group[g]) totals[g].sum += values[static_cast<size_t>(i)];
    totals[g].count = static_cast<double>(by_group[g].size());
  }
  return SpreadOverResamples(by_group, options, [&](KeyedRandom* random) {
    Total total;
    for (uint32_t g = 0; g < by_group.size(); ++g) {
      const Total& drawn = totals[random->Below(by_group.size())];
      total.sum += drawn.sum;
      total.count += drawn.count;
    }
    return total.sum / total.count;
  });
}

}  // namespace allometry::trainer
