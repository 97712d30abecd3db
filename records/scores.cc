#include "records/scores.h"

#include <algorithm>
#include <type_traits>

#include "common/table.h"

namespace allometry::records {
namespace {

using common::Json;

// The member where it has the type of `fallback`, else that.
template <typename T>
T Member(const Json& object, const char* key, T fallback) {
  const auto found = object.find(key);
  if (found == object.end()) return fallback;
  if constexpr (std::is_same_v<T, bool>) return found->is_boolean() ? found->get<bool>() : fallback;
  if constexpr (std::is_same_v<T, int64_t>) return found->is_number() ? found->get<int64_t>() : fallback;
  if constexpr (std::is_same_v<T, std::string>) return found->is_string() ? found->get<std::string>() : fallback;
}

std::optional<double> Number(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? std::nullopt : common::NumberFromJson(*found);
}

std::map<std::string, double> Numbers(const Json& object, const char* key) {
  std::map<std::string, double> numbers;
  const auto found = object.find(key);
  if (found == object.end() || !found->is_object()) return numbers;
  for (const auto& [name, value] : found->items())
    if (const auto number = common::NumberFromJson(value)) numbers[name] = *number;
  return numbers;
}

Score ScoreOf(const Json& entry, double value) {
  Score score{.value = value,
              .standard_error = Number(entry, "standard_error"),
              .majority = Number(entry, "majority"),
              .examples = Member(entry, "examples", int64_t{0}),
              .at_chance = Member(entry, "at_chance", false),
              .benchmark = Member(entry, "benchmark", std::string()),
              .in_average = Member(entry, "in_average", true),
              .metrics = Numbers(entry, "metrics"),
              .standard_errors = Numbers(entry, "standard_errors"),
              .unparsed = Member(entry, "unparsed", int64_t{0}),
              .decoding = Member(entry, "decoding", std::string()),
              .split = Member(entry, "split", std::string()),
              .selected_on_test = Member(entry, "selected_on_test", false)};
  const std::string metric = Member(entry, "metric", std::string());
  if (score.metrics.empty() && !metric.empty()) {
    score.metrics[metric] = score.value;
    if (score.standard_error) score.standard_errors[metric] = *score.standard_error;
  }
  return score;
}

std::optional<double> Sum(const std::optional<double>& a, const std::optional<double>& b) {
  return a && b ? std::optional(*a + *b) : std::nullopt;
}

Score Merged(const std::vector<Score>& entries) {
  Score merged = entries.front();
  for (size_t i = 1; i < entries.size(); ++i) {
    const Score& entry = entries[i];
    merged.value += entry.value;
    merged.majority = Sum(merged.majority, entry.majority);
    merged.standard_error = std::max(merged.standard_error, entry.standard_error);
    merged.at_chance = merged.at_chance && entry.at_chance;
    merged.unparsed = std::max(merged.unparsed, entry.unparsed);
    merged.selected_on_test = merged.selected_on_test || entry.selected_on_test;
    merged.metrics.insert(entry.metrics.begin(), entry.metrics.end());
    merged.standard_errors.insert(entry.standard_errors.begin(), entry.standard_errors.end());
  }
  merged.value /= static_cast<double>(entries.size());
  if (merged.majority) *merged.majority /= static_cast<double>(entries.size());
  return merged;
}

}  // namespace

TaskScores ScoresOfResult(const Json& list) {
  std::map<std::string, std::vector<Score>> entries;
  TaskScores scores;
  if (!list.is_array()) return scores;
  for (const Json& entry : list) {
    if (!entry.is_object()) continue;
    const std::string task = Member(entry, "task", std::string());
    const std::optional<double> value = Number(entry, "value");
    if (!task.empty() && value) entries[task].push_back(ScoreOf(entry, *value));
  }
  for (const auto& [task, all] : entries) scores[task] = Merged(all);
  return scores;
}

}  // namespace allometry::records
