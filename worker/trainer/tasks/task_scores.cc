#include "worker/trainer/tasks/task_scores.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "worker/trainer/tasks/metrics.h"
#include "worker/trainer/tasks/stsb_value.h"
#include "worker/trainer/tasks/wsc_referent.h"

namespace allometry::trainer {
namespace {

using common::Json;

double MeanOf(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

std::vector<int64_t> AllOf(int64_t examples) {
  std::vector<int64_t> all(static_cast<size_t>(examples));
  std::iota(all.begin(), all.end(), int64_t{0});
  return all;
}

// One metric of one split.
struct Measure {
  std::string metric;
  std::vector<double> values;  // by answer, if the metric is their mean
  IndexStatistic statistic;    // of answers' numbers, if it is not

  double Of(std::span<const int64_t> answers) const {
    return values.empty() ? statistic(answers) : MeanOf(Select(values, answers));
  }
};

Measure MeanMeasure(std::string metric, std::vector<double> values) {
  return {std::move(metric), std::move(values), {}};
}

// The standard errors of statistics of one split's answers.
class ErrorEstimator {
 public:
  explicit ErrorEstimator(const SplitAnswers& split) : examples_(static_cast<int64_t>(split.examples.size())) {
    for (int64_t example : split.examples) {
      const int32_t passage = split.data->facts(example).passage;
      if (passage >= 0) passages_.push_back(passage);
    }
    if (static_cast<int64_t>(passages_.size()) != examples_) passages_.clear();
  }

  std::optional<double> OfMean(std::span<const double> values) const {
    if (!passages_.empty()) return BootstrapErrorOfMean(values, passages_);
    double squares = 0;
    const double mean = MeanOf(values);
    for (double value : values) squares += (value - mean) * (value - mean);
    return std::sqrt(squares) / static_cast<double>(examples_);
  }
  std::optional<double> Of(const Measure& measure) const {
    if (!measure.values.empty()) return OfMean(measure.values);
    return BootstrapError(examples_, passages_, measure.statistic);
  }
  // Of the mean of all: they are of the same answers, and so not independent.
  std::optional<double> OfAll(const std::vector<Measure>& measures) const {
    if (measures.size() == 1) return Of(measures.front());
    const auto mean = [&](std::span<const int64_t> answers) {
      double sum = 0;
      for (const Measure& measure : measures) sum += measure.Of(answers);
      return sum / static_cast<double>(measures.size());
    };
    if (std::ranges::any_of(measures, [](const Measure& m) { return m.values.empty(); }))
      return BootstrapError(examples_, passages_, mean);
    std::vector<double> values(static_cast<size_t>(examples_), 0.0);
    for (const Measure& measure : measures)
      for (size_t i = 0; i < values.size(); ++i) values[i] += measure.values[i] / static_cast<double>(measures.size());
    return OfMean(values);
  }

 private:
  int64_t examples_;
  std::vector<int64_t> passages_;
};

// ---- Closed answers

std::vector<int32_t> GoldLabels(const SplitAnswers& split) {
  std::vector<int32_t> gold;
  for (int64_t example : split.examples) gold.push_back(split.data->Label(example));
  return gold;
}

// Of the referent task an answer stands for label 1 if it names the referent, else for 0.
std::vector<int32_t> PredictedLabels(const TaskData& task, const SplitAnswers& split) {
  std::vector<int32_t> predicted;
  for (size_t i = 0; i < split.answers.size(); ++i)
    predicted.push_back(task.answer() == AnswerKind::kReferent
                            ? MatchesReferent(split.answers[i], split.data->facts(split.examples[i]).references.front())
                            : task.ParseLabel(split.answers[i]));
  return predicted;
}

std::vector<int64_t> Questions(const SplitAnswers& split) {
  std::vector<int64_t> questions;
  for (int64_t example : split.examples) questions.push_back(split.data->facts(example).question);
  return questions;
}

Measure LabelMeasure(const std::string& metric, const SplitAnswers& split, const std::vector<int32_t>& gold,
                     const std::vector<int32_t>& predicted, int32_t classes) {
  using Labels = std::span<const int32_t>;
  const auto statistic = [&](double (*of)(Labels, Labels, int32_t), int32_t argument) {
    return Measure{metric, {}, [=](std::span<const int64_t> answers) {
                     return of(Select(gold, answers), Select(predicted, answers), argument);
                   }};
  };
  if (metric == "matthews") return statistic(&MatthewsCorrelation, classes);
  if (metric == "f1" || metric == "f1a") return statistic(&BinaryF1, 1);
  if (metric == "f1_macro") return statistic(&MacroF1, classes);
  if (metric == "exact_match")
    return {metric, {}, [marks = QuestionMarks(gold, predicted, Questions(split))](std::span<const int64_t> answers) {
              return QuestionExactMatch(Select(marks, answers));
            }};
  if (metric != "accuracy") throw std::invalid_argument("there is no metric '" + metric + "' for labels");
  std::vector<double> right;
  for (size_t i = 0; i < gold.size(); ++i) right.push_back(gold[i] == predicted[i]);
  return MeanMeasure(metric, std::move(right));
}

std::vector<Measure> LabelMeasures(const TaskData& task, const SplitAnswers& split,
                                   const std::vector<int32_t>& predicted) {
  const auto classes = task.answer() == AnswerKind::kReferent ? 2 : static_cast<int32_t>(task.labels().size());
  const std::vector<int32_t> gold = GoldLabels(split);
  std::vector<Measure> measures;
  for (const std::string& metric : task.metrics())
    measures.push_back(LabelMeasure(metric, split, gold, predicted, classes));
  return measures;
}

// ---- Numbers and texts

std::vector<Measure> NumberMeasures(const TaskData& task, const SplitAnswers& split) {
  std::vector<double> gold, predicted;
  for (size_t i = 0; i < split.answers.size(); ++i) {
    gold.push_back(split.data->facts(split.examples[i]).value);
    predicted.push_back(StsbValue(split.answers[i]));
  }
  std::vector<Measure> measures;
  for (const std::string& metric : task.metrics()) {
    const auto of = metric == "pearson" ? &PearsonCorrelation : &SpearmanCorrelation;
    measures.push_back({metric, {}, [=](std::span<const int64_t> answers) {
                          return of(Select(gold, answers), Select(predicted, answers));
                        }});
  }
  return measures;
}

double TextScore(const std::string& metric, std::string_view answer, const std::vector<std::string>& references) {
  if (metric == "accuracy") return std::ranges::find(references, answer) != references.end();
  const AnswerScore score = ScoreAnswer(answer, references);
  return metric == "f1" ? score.f1 : score.exact_match;
}

std::vector<Measure> TextMeasures(const TaskData& task, const SplitAnswers& split) {
  std::vector<Measure> measures;
  for (const std::string& metric : task.metrics()) {
    std::vector<double> values;
    for (size_t i = 0; i < split.answers.size(); ++i)
      values.push_back(TextScore(metric, split.answers[i], split.data->facts(split.examples[i]).references));
    measures.push_back(MeanMeasure(metric, std::move(values)));
  }
  return measures;
}

std::vector<Measure> MeasuresOf(const TaskData& task, const SplitAnswers& split) {
  if (task.answer() == AnswerKind::kNumber) return NumberMeasures(task, split);
  if (task.answer() == AnswerKind::kText) return TextMeasures(task, split);
  return LabelMeasures(task, split, PredictedLabels(task, split));
}

double ValueOf(const std::vector<Measure>& measures, int64_t examples) {
  double sum = 0;
  for (const Measure& measure : measures) sum += measure.Of(AllOf(examples));
  return sum / static_cast<double>(measures.size());
}

// ---- What no model is needed for

double ValueOfConstant(const TaskData& task, std::span<const SplitAnswers> splits, int32_t label) {
  double sum = 0;
  for (const SplitAnswers& split : splits) {
    const auto examples = static_cast<int64_t>(split.examples.size());
    sum += ValueOf(LabelMeasures(task, split, std::vector<int32_t>(split.examples.size(), label)), examples);
  }
  return sum / static_cast<double>(splits.size());
}

std::optional<double> ValueOfRandomChoice(const TaskData& task, std::span<const SplitAnswers> splits) {
  double sum = 0, examples = 0;
  for (const SplitAnswers& split : splits) {
    for (int64_t example : split.examples) {
      const ExampleFacts& facts = split.data->facts(example);
      if (facts.choices.empty()) return std::nullopt;
      double expected = 0;
      for (const std::string& choice : facts.choices)
        for (const std::string& metric : task.metrics()) expected += TextScore(metric, choice, facts.references);
      sum += expected / static_cast<double>(facts.choices.size() * task.metrics().size());
      ++examples;
    }
  }
  return sum / examples;
}

std::optional<double> Majority(const TaskData& task, std::span<const SplitAnswers> splits) {
  if (task.answer() == AnswerKind::kNumber) return 0;  // a correlation with a constant
  if (task.answer() == AnswerKind::kText) return ValueOfRandomChoice(task, splits);
  const auto labels = task.answer() == AnswerKind::kReferent ? 2 : static_cast<int32_t>(task.labels().size());
  double best = ValueOfConstant(task, splits, 0);
  for (int32_t label = 1; label < labels; ++label) best = std::max(best, ValueOfConstant(task, splits, label));
  return best;
}

bool IsUnparsed(const TaskData& task, const SplitAnswers& split, size_t i) {
  switch (task.answer()) {
    case AnswerKind::kLabel:
      return task.ParseLabel(split.answers[i]) < 0;
    case AnswerKind::kNumber:
      return StsbValue(split.answers[i]) == -1;
    case AnswerKind::kText: {
      const std::vector<std::string>& choices = split.data->facts(split.examples[i]).choices;
      return !choices.empty() && std::ranges::find(choices, split.answers[i]) == choices.end();
    }
    case AnswerKind::kReferent:
      return false;
  }
  return false;
}

void RequireAnswers(std::span<const SplitAnswers> splits) {
  const bool complete = !splits.empty() && std::ranges::all_of(splits, [](const SplitAnswers& split) {
    return !split.examples.empty() && split.examples.size() == split.answers.size();
  });
  if (!complete) throw std::invalid_argument("ScoreTask: as many answers as examples are needed, at least one");
}

Json OrNull(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

}  // namespace

Json TaskScore::ToJson() const {
  Json values = Json::object(), errors = Json::object();
  for (const MetricScore& score : metrics) {
    values[score.metric] = score.value;
    errors[score.metric] = OrNull(score.standard_error);
  }
  return {{"task", task},
          {"benchmark", benchmark},
          {"in_average", in_average},
          {"metric", metrics.front().metric},
          {"value", value},
          {"standard_error", OrNull(standard_error)},
          {"metrics", values},
          {"standard_errors", errors},
          {"examples", examples},
          {"majority", OrNull(majority)},
          {"at_chance", at_chance},
          {"unparsed", unparsed}};
}

TaskScore ScoreTask(const TaskData& task, std::span<const SplitAnswers> splits, bool with_errors) {
  RequireAnswers(splits);
  TaskScore score{.task = task.name(), .benchmark = task.benchmark(), .in_average = task.in_average()};
  const auto count = static_cast<double>(splits.size());
  std::optional<double> variance = 0.0;
  for (const SplitAnswers& split : splits) {
    const auto examples = static_cast<int64_t>(split.examples.size());
    const std::vector<Measure> measures = MeasuresOf(task, split);
    const ErrorEstimator errors(split);
    const std::string prefix = splits.size() > 1 ? split.split + "_" : "";
    for (const Measure& measure : measures)
      score.metrics.push_back(
          {prefix + measure.metric, measure.Of(AllOf(examples)), with_errors ? errors.Of(measure) : std::nullopt});
    score.value += ValueOf(measures, examples) / count;
    const std::optional<double> error = with_errors ? errors.OfAll(measures) : std::nullopt;
    variance = variance && error ? std::optional(*variance + *error * *error / (count * count)) : std::nullopt;
    score.examples += examples;
    for (size_t i = 0; i < split.answers.size(); ++i) score.unparsed += IsUnparsed(task, split, i);
  }
  if (variance) score.standard_error = std::sqrt(*variance);
  score.majority = Majority(task, splits);
  score.at_chance = score.value <= score.majority.value_or(0) + 2 * score.standard_error.value_or(0);
  return score;
}

Json PredictionOf(const TaskData& task, const SplitAnswers& answers, size_t i) {
  const int64_t example = answers.examples[i];
  const ExampleFacts& facts = answers.data->facts(example);
  Json gold = facts.references;
  if (task.answer() == AnswerKind::kNumber) gold = facts.value;
  if (task.answer() == AnswerKind::kLabel) gold = task.labels()[static_cast<size_t>(answers.data->Label(example))];
  Json row{{"split", answers.split},
           {"id", facts.id.empty() ? std::to_string(example) : facts.id},
           {"prediction", answers.answers[i]},
           {"gold", std::move(gold)}};
  if (task.answer() == AnswerKind::kReferent) row["names_referent"] = answers.data->Label(example) == 1;
  return row;
}

}  // namespace allometry::trainer
