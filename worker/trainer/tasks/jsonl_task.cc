#include "worker/trainer/tasks/jsonl_task.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "worker/trainer/tasks/json_row.h"

namespace allometry::trainer {
namespace {

constexpr std::array<std::string_view, 3> kJsonlMetrics = {"accuracy", "exact_match", "f1"};

// What the rows so far had: all of a task must be of one kind.
enum class RowKind { kUnknown, kTarget, kChoices };

struct Split {
  std::vector<TaskExample> examples;
  std::map<std::string, int32_t> passages;  // by the file's name for them
  int64_t rows = 0;                         // bad ones too
};

common::Status TakeTarget(const JsonRow& row, TaskExample* example) {
  if (row.Find("target")->is_array()) {
    ALLO_ASSIGN_OR_RETURN(const std::vector<std::string> targets, row.Texts("target"));
    for (const std::string& target : targets)
      if (std::ranges::find(example->references, target) == example->references.end())
        example->references.push_back(target);
  } else {
    ALLO_ASSIGN_OR_RETURN(std::string target, row.Text("target"));
    example->references = {std::move(target)};
  }
  const bool empty = std::ranges::any_of(example->references, [](const std::string& r) { return r.empty(); });
  if (empty || example->references.empty()) return row.Wrong("'target' is empty");
  example->target = example->references.front();
  example->label = -1;
  return common::Ok();
}

common::Result<int32_t> LabelAmong(const JsonRow& row, const std::vector<std::string>& choices) {
  const common::Json* label = row.Find("label");
  if (!label) return row.Wrong("there are 'choices' but no 'label'");
  if (label->is_string()) {
    const auto found = std::ranges::find(choices, label->get<std::string>());
    if (found != choices.end()) return static_cast<int32_t>(found - choices.begin());
    return row.Wrong("the label '" + label->get<std::string>() + "' is none of the choices");
  }
  ALLO_ASSIGN_OR_RETURN(const int64_t position, row.Integer("label"));
  if (position >= 0 && position < static_cast<int64_t>(choices.size())) return static_cast<int32_t>(position);
  return row.Wrong("the label " + std::to_string(position) + " is not from 0 to " + std::to_string(choices.size() - 1) +
                   ", as there are choices");
}

common::Status TakeChoices(const JsonRow& row, TaskExample* example) {
  ALLO_ASSIGN_OR_RETURN(example->choices, row.Texts("choices"));
  std::vector<std::string> sorted = example->choices;
  std::ranges::sort(sorted);
  if (sorted.size() < 2) return row.Wrong("'choices' should have at least two texts");
  if (sorted.front().empty()) return row.Wrong("one of the 'choices' is empty");
  if (std::ranges::adjacent_find(sorted) != sorted.end()) return row.Wrong("two of the 'choices' are the same");
  ALLO_ASSIGN_OR_RETURN(example->label, LabelAmong(row, example->choices));
  example->target = example->choices[static_cast<size_t>(example->label)];
  example->references = {example->target};
  return common::Ok();
}

class JsonlTask : public Task {
 public:
  explicit JsonlTask(JsonlTaskOptions options) : options_(std::move(options)) {
    for (const std::string& metric : options_.metrics) metrics_.push_back(metric);
    files_ = {options_.train_file, options_.valid_file};
  }
  std::string_view name() const override { return options_.name; }
  std::string_view benchmark() const override { return "own"; }
  AnswerKind answer() const override { return AnswerKind::kText; }
  std::span<const std::string_view> labels() const override { return {}; }
  std::span<const std::string_view> metrics() const override { return metrics_; }
  int numerics_version() const override { return 1; }
  std::span<const std::string_view> files() const override { return files_; }

  common::Result<TaskExamples> Read(const TaskFiles& files, BadRows bad_rows) const override {
    TaskExamples examples;
    RowKind kind = RowKind::kUnknown;
    for (const bool train : {true, false}) {
      Split split;
      ALLO_RETURN_IF_ERROR(ReadJsonLines(files, options_.name, files_[train ? 0 : 1], bad_rows,
                                         train ? "train" : "valid", &examples.counts,
                                         [&](const JsonRow& row) { return AddRow(row, &kind, &split); }));
      (train ? examples.train : examples.valid) = std::move(split.examples);
    }
    return examples;
  }

 private:
  static common::Status AddRow(const JsonRow& row, RowKind* kind, Split* split) {
    TaskExample example;
    example.id = std::to_string(split->rows++);
    ALLO_ASSIGN_OR_RETURN(example.input, row.Text("input"));
    if (example.input.empty()) return row.Wrong("'input' is empty");
    ALLO_ASSIGN_OR_RETURN(const RowKind its_kind, KindOf(row, *kind));
    ALLO_RETURN_IF_ERROR(its_kind == RowKind::kTarget ? TakeTarget(row, &example) : TakeChoices(row, &example));
    if (row.Has("id")) {
      ALLO_ASSIGN_OR_RETURN(example.id, row.Id("id"));
    }
    if (row.Has("passage")) {
      ALLO_ASSIGN_OR_RETURN(const std::string passage, row.Id("passage"));
      example.passage = split->passages.emplace(passage, static_cast<int32_t>(split->passages.size())).first->second;
    }
    *kind = its_kind;
    split->examples.push_back(std::move(example));
    return common::Ok();
  }

  // The row's kind, which must be that of the rows before.
  static common::Result<RowKind> KindOf(const JsonRow& row, RowKind before) {
    const bool target = row.Has("target"), choices = row.Has("choices");
    if (target == choices)
      return row.Wrong(target ? "there are both 'target' and 'choices'; one of them is needed"
                              : "there is neither 'target' nor 'choices'");
    const RowKind found = target ? RowKind::kTarget : RowKind::kChoices;
    if (before != RowKind::kUnknown && before != found)
      return row.Wrong(std::string("there is '") + (target ? "target" : "choices") + "', but the rows before have '" +
                       (target ? "choices" : "target") + "'");
    return found;
  }

  JsonlTaskOptions options_;
  std::vector<std::string_view> files_, metrics_;  // of options_
};

}  // namespace

common::Result<std::unique_ptr<Task>> MakeJsonlTask(JsonlTaskOptions options) {
  if (options.name.empty()) return common::InvalidArgument("a task of one's own needs a name");
  if (FindTask(options.name).ok())
    return common::InvalidArgument("the name '" + options.name + "' is that of a built-in task; choose another");
  if (options.train_file == options.valid_file)
    return common::InvalidArgument("task " + options.name + ": training and validation are the same file, '" +
                                   options.train_file + "'");
  if (options.metrics.empty()) return common::InvalidArgument("task " + options.name + " has no metric");
  for (const std::string& metric : options.metrics)
    if (std::ranges::find(kJsonlMetrics, metric) == kJsonlMetrics.end())
      return common::InvalidArgument("task " + options.name + ": there is no metric '" + metric +
                                     "' for it; allowed: accuracy exact_match f1");
  return std::unique_ptr<Task>(std::make_unique<JsonlTask>(std::move(options)));
}

}  // namespace allometry::trainer
