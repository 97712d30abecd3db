// glue_stsb: how alike are two sentences, from 0 to 5? (Cer et al. 2017, STS Benchmark)
//   stsb sentence1: A plane is taking off. sentence2: An air plane is taking off.  ->  5.0
// Trained on 26 texts, "0.0", "0.2" … "5.0" (T5's preprocessor `stsb`); scored against the gold value as it is.
#include <charconv>
#include <cmath>
#include <cstdio>
#include <optional>

#include "worker/trainer/tasks/glue.h"
#include "worker/trainer/tasks/stsb_value.h"

namespace allometry::trainer {
namespace {

constexpr double kMost = 5;
constexpr float kStepsPerUnit = 5;  // the nearest 0.2

constexpr std::string_view kBlanks = " \t\n\r\f\v";

// The finite number that is the whole text, blanks around it and a plus sign before it allowed.
std::optional<double> ParseNumber(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == text.npos) return std::nullopt;
  text = text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

float Steps(double value) { return std::nearbyint(static_cast<float>(value) * kStepsPerUnit); }

class GlueStsb : public GlueTask {
 public:
  using GlueTask::GlueTask;
  AnswerKind answer() const override { return AnswerKind::kNumber; }

 protected:
  common::Status SetAnswer(std::string_view text, TaskExample* example) const override {
    const std::optional<double> value = ParseNumber(text);
    if (!value || *value < 0 || *value > kMost)
      return common::InvalidArgument("the score '" + std::string(text) + "' is not a number from 0 to 5");
    example->value = *value;
    example->label = static_cast<int32_t>(Steps(*value));
    return common::Ok();
  }
};

}  // namespace

double StsbValue(std::string_view answer) { return ParseNumber(answer).value_or(-1); }

std::string StsbTarget(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", static_cast<double>(Steps(value) / kStepsPerUnit));
  return text;
}

const Task& GlueStsbTask() {
  static const GlueStsb task(GlueDescription{
      .name = "glue_stsb",
      .prefix = "stsb",
      .fields = {{"sentence1", "sentence1"}, {"sentence2", "sentence2"}},
      .label_column = "score",
      .labels = {"0.0", "0.2", "0.4", "0.6", "0.8", "1.0", "1.2", "1.4", "1.6", "1.8", "2.0", "2.2", "2.4",
                 "2.6", "2.8", "3.0", "3.2", "3.4", "3.6", "3.8", "4.0", "4.2", "4.4", "4.6", "4.8", "5.0"},
      .metrics = {"pearson", "spearman"},
      .id_columns = {"index"}});
  return task;
}

}  // namespace allometry::trainer
