#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// Scores of GLUE (arXiv 1804.07461), SuperGLUE (arXiv 1905.00537) and SQuAD v1.1 (arXiv 1606.05250) by each benchmark's
// own definition, and their standard errors; analysis/benchmarks.h has their averages. All scores are fractions: 0 … 1,
// correlations -1 … 1; the benchmarks print 100 times as much. Pure functions, thread-safe. Arguments that no reader may hand over (no example
// at all, lengths that differ, a label out of range) throw std::invalid_argument.
namespace allometry::trainer {

// ---- Closed answers: label numbers from 0, in `predicted` also kUnparsed.

inline constexpr int32_t kUnparsed = -1;  // an answer that is none of the labels

int64_t CountUnparsed(std::span<const int32_t> predicted);

// Share of answers that are the gold label.
double Accuracy(std::span<const int32_t> gold, std::span<const int32_t> predicted);

// F1 of the class `positive` out of the labels 0 and 1: 2 TP / (2 TP + FP + FN), 0 where that is 0 / 0. An unparsed
// answer counts as the opposite of the gold label.
double BinaryF1(std::span<const int32_t> gold, std::span<const int32_t> predicted, int32_t positive = 1);

// Mean over the labels 0 … classes - 1 of each one's F1 against the rest (CB, with three classes). All of them count,
// also one that is neither in the gold labels nor in the answers: its F1 is 0. This is scikit-learn's
// f1_score(labels=range(classes), average="macro", zero_division=0). With more than two labels no single one is the
// opposite, so an unparsed answer is a miss of its gold label and a false alarm of none.
double MacroF1(std::span<const int32_t> gold, std::span<const int32_t> predicted, int32_t classes);

// Matthews correlation (CoLA), for any number of classes the statistic R_K (Gorodkin 2004, doi
// 10.1016/j.compbiolchem.2004.09.006): with s examples, c right ones, t_k of gold label k and p_k answers k,
// (c s - sum t_k p_k) / sqrt((s^2 - sum p_k^2) (s^2 - sum t_k^2)); 0 where that is 0 / 0, as when all answers are the
// same. Unparsed is one more class. Fewer than 2^31 examples.
double MatthewsCorrelation(std::span<const int32_t> gold, std::span<const int32_t> predicted, int32_t classes = 2);

// ---- MultiRC: one example an answer option, labels 0 and 1 (right answer), `question` an id each, in any order.

// 1 or 0 at the first option of each question: whether all its options are answered right; -1 at its other options.
// So options can be resampled in whole questions, and one that is drawn twice counts twice.
std::vector<int8_t> QuestionMarks(std::span<const int32_t> gold, std::span<const int32_t> predicted,
                                  std::span<const int64_t> question);

// EM: share of questions of which every option is answered right. F1a is BinaryF1 over all options.
double QuestionExactMatch(std::span<const int8_t> marks);

// ---- STS-B: real values, finite and below 1e100 in size. The caller gives -1 for an answer that is no such number.

// 0 where one side is constant.
double PearsonCorrelation(std::span<const double> gold, std::span<const double> predicted);
// Pearson's of the ranks, ties sharing their average rank.
double SpearmanCorrelation(std::span<const double> gold, std::span<const double> predicted);
// From 1.
std::vector<double> AverageRanks(std::span<const double> values);

// ---- SQuAD and ReCoRD: texts.

struct AnswerScore {
  double exact_match = 0;  // 0 or 1
  double f1 = 0;
};

// Each the maximum over the references, of which there is at least one, after NormalizeAnswer (answer_text.h). F1 is
// that of the words as a bag: 2 common / (words here + words there), 0 if none is common; so two empty answers match
// exactly and have F1 0. ReCoRD: the references are the entities that are right.
AnswerScore ScoreAnswer(std::string_view prediction, std::span<const std::string> references);

// ---- Standard errors by bootstrap (Efron 1979).

struct BootstrapOptions {
  int32_t resamples = 1000;  // at least 2
  uint64_t seed = 0;
};

// A score of a resample, given as the numbers of its examples; one may be there several times.
using IndexStatistic = std::function<double(std::span<const int64_t> examples)>;

// The sample standard deviation of a statistic over resamples. `groups`: an id for each example (its passage); as many
// groups as there are are drawn with replacement, and each draw brings all of its group's examples, in order. Empty:
// each example is a group. The draws are a function of seed and resample, so the same on every machine and for every
// statistic of the same groups. Fewer than two groups give no estimate.
std::optional<double> BootstrapError(int64_t examples, std::span<const int64_t> groups, const IndexStatistic& statistic,
                                     const BootstrapOptions& options = {});

// The same for the mean of `values`, up to rounding, and fast: a group is one addition, however many examples it has.
std::optional<double> BootstrapErrorOfMean(std::span<const double> values, std::span<const int64_t> groups,
                                           const BootstrapOptions& options = {});

// What a statistic sees of `values`: BootstrapError(n, {}, [&](auto i) { return Accuracy(Select(gold, i), ...); }).
template <typename T>
std::vector<T> Select(const std::vector<T>& values, std::span<const int64_t> examples) {
  std::vector<T> selected;
  selected.reserve(examples.size());
  for (int64_t i : examples) selected.push_back(values[static_cast<size_t>(i)]);
  return selected;
}

}  // namespace allometry::trainer
