#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <numeric>

#include "common/files.h"
#include "worker/trainer/data/dataset.h"
#include "worker/trainer/data/finetune_batches.h"
#include "worker/trainer/data/prepare.h"
#include "worker/trainer/engine/run_kinds.h"
#include "worker/trainer/engine/stop_signal.h"
#include "worker/trainer/engine/task_answers.h"
#include "worker/trainer/tasks/task_scores.h"

namespace allometry::trainer {
namespace {

using common::Json;
using common::Result;

// Examples that are scored together.
struct ScoredSplit {
  std::string name;
  TaskSplit data;
  std::vector<int64_t> examples;
};

// A task, as it is asked and by what.
struct ScoredTask {
  TaskData task;
  AnswerOptions options;
  std::vector<ScoredSplit> valid;
  std::optional<ScoredSplit> holdout;

  std::vector<const ScoredSplit*> ForSelection() const {
    if (holdout) return {&*holdout};
    return ForScores();
  }
  std::vector<const ScoredSplit*> ForScores() const {
    std::vector<const ScoredSplit*> splits;
    for (const ScoredSplit& split : valid) splits.push_back(&split);
    return splits;
  }
};

struct ScoredAnswers {
  TaskScore score;
  std::vector<SplitAnswers> answers;
};

// As wide as its longest rows; for a GPU of eight shapes at most.
HostBatch TrainingBatch(const FinetuneBatches& batches, const FinetuneConfig& config, bool on_gpu, int64_t step) {
  const int64_t rows = config.training.batch_sequences;
  at::Tensor inputs = at::empty({rows, config.input_length}, at::kLong);
  at::Tensor targets = at::empty({rows, config.target_length}, at::kLong);
  batches.Fill(step - 1, 0, rows, inputs.mutable_data_ptr<int64_t>(), targets.mutable_data_ptr<int64_t>());
  const int64_t tokens = targets.ne(0).sum().item<int64_t>();
  int64_t width = UsedWidth(inputs);
  int64_t answer_width = std::max<int64_t>(1, targets.ne(0).sum(1).max().item<int64_t>());
  if (on_gpu) {
    width = RoundedWidth(width, config.input_length, 4);
    answer_width = RoundedWidth(answer_width, config.target_length, 2);
  }
  return {inputs.slice(1, 0, width).contiguous(), targets.slice(1, 0, answer_width).contiguous(), tokens};
}

// ---- Tasks

std::vector<int64_t> FirstOf(int64_t size, int64_t most) {
  std::vector<int64_t> first(static_cast<size_t>(most > 0 ? std::min(most, size) : size));
  std::iota(first.begin(), first.end(), int64_t{0});
  return first;
}

common::Status CheckAnswers(const TaskData& task, const FinetuneConfig& config) {
  if (task.labels().empty()) return common::Ok();
  // An answer may be one token too long, and is then seen as none.
  const auto& model = config.training.model;
  const int64_t longest = (*arch::FindArchitecture(model.architecture))->LongestLengths(model.options).targets;
  if (task.LongestTarget() + 1 <= longest) return common::Ok();
  return common::InvalidArgument("run.tasks: an answer to '" + task.name() + "' takes up to " +
                                 std::to_string(task.LongestTarget() + 1) + " tokens, and the model is built for " +
                                 std::to_string(longest));
}

Result<Decoding> DecodingOf(const TaskData& task, const TaskConfig& wanted, const FinetuneConfig& config) {
  const std::string& decoding = wanted.decoding.empty() ? config.decoding : wanted.decoding;
  if (decoding == "greedy") return Decoding::kGreedy;
  if (task.HasChoices()) return Decoding::kRank;
  if (wanted.decoding.empty()) return Decoding::kGreedy;
  return common::InvalidArgument("run.tasks: '" + task.name() +
                                 "' has no choices to rank: its 'decoding' must be 'greedy'");
}

Result<ScoredTask> OpenTask(const Dataset& data, const FinetuneConfig& config, const TaskConfig& wanted) {
  auto task = data.OpenTask(wanted.name);
  if (!task) {
    if (task.error().code != common::ErrorCode::kNotFound) return task.error();
    return common::InvalidArgument("run.tasks: " + task.error().message);
  }
  ALLO_RETURN_IF_ERROR(CheckAnswers(*task, config));
  ScoredTask scored;
  ALLO_ASSIGN_OR_RETURN(const Decoding decoding, DecodingOf(*task, wanted, config));
  scored.options = {decoding, config.input_length, config.target_length};
  for (size_t i = 0; i < task->valid_names().size(); ++i) {
    const TaskSplit& split = task->valid_splits()[i];
    scored.valid.push_back({task->valid_names()[i], split, FirstOf(split.size(), wanted.max_valid)});
  }
  if (config.holdout > 0) {
    const auto used = static_cast<int64_t>(FirstOf(task->train().size(), wanted.max_train).size());
    auto held_out = HoldOut(task->train(), used, config.holdout);
    if (!held_out) return common::DataLoss("task '" + wanted.name + "': " + held_out.error().message);
    scored.holdout = ScoredSplit{"holdout", task->train(), std::move(*held_out)};
  }
  scored.task = std::move(*task);
  return scored;
}

Result<std::vector<ScoredTask>> OpenTasks(const Dataset& data, const FinetuneConfig& config) {
  std::vector<ScoredTask> tasks;
  for (const TaskConfig& wanted : config.tasks) {
    ALLO_ASSIGN_OR_RETURN(ScoredTask task, OpenTask(data, config, wanted));
    tasks.push_back(std::move(task));
  }
  return tasks;
}

Result<FinetuneBatches> OpenBatches(const std::vector<ScoredTask>& tasks, const FinetuneConfig& config) {
  std::vector<TaskShare> shares;
  for (size_t i = 0; i < tasks.size(); ++i)
    shares.push_back({tasks[i].task, config.tasks[i].max_train,
                      tasks[i].holdout ? tasks[i].holdout->examples : std::vector<int64_t>()});
  return FinetuneBatches::Create(std::move(shares), config.mixture_cap, config.input_length, config.target_length,
                                 config.training.batch_sequences, config.training.seed, config.shuffle_labels);
}

// ---- Scores

// Nothing if a stop was requested meanwhile.
std::optional<ScoredAnswers> Ask(ModelState& state, const at::Device& device, const ScoredTask& scored,
                                 const std::vector<const ScoredSplit*>& splits, bool with_errors) {
  ScoredAnswers asked;
  for (const ScoredSplit* split : splits) {
    auto answers = AnswerExamples(state, device, scored.task, split->data, split->examples, scored.options);
    if (!answers) return std::nullopt;
    asked.answers.push_back({split->name, &split->data, split->examples, std::move(*answers)});
  }
  asked.score = ScoreTask(scored.task, asked.answers, with_errors);
  return asked;
}

std::optional<std::vector<ScoredAnswers>> AskAll(ModelState& state, const at::Device& device,
                                                 const std::vector<ScoredTask>& tasks) {
  std::vector<ScoredAnswers> all;
  for (const ScoredTask& scored : tasks) {
    auto asked = Ask(state, device, scored, scored.ForScores(), /*with_errors=*/true);
    if (!asked) return std::nullopt;
    all.push_back(std::move(*asked));
  }
  return all;
}

// What checkpoints are selected by: the mean of the tasks' scores on what was held out, or else on validation.
std::optional<Evaluation> EvaluateForSelection(ModelState& state, const at::Device& device,
                                               const std::vector<ScoredTask>& tasks) {
  Evaluation evaluation;
  for (const ScoredTask& scored : tasks) {
    const auto asked = Ask(state, device, scored, scored.ForSelection(), /*with_errors=*/false);
    if (!asked) return std::nullopt;
    evaluation.values[(scored.holdout ? "holdout/" : "valid/") + scored.task.name()] = asked->score.value;
    evaluation.score += asked->score.value / static_cast<double>(tasks.size());
  }
  return evaluation;
}

Json ScoreToJson(const ScoredTask& scored, const ScoredAnswers& asked, const FinetuneConfig& config) {
  Json json = asked.score.ToJson();
  json["decoding"] = scored.options.decoding == Decoding::kRank ? "rank" : "greedy";
  json["selected_on_test"] = config.select == "best" && config.holdout == 0;
  int64_t truncated = 0;
  for (const ScoredSplit* split : scored.ForScores())
    for (int64_t example : split->examples) truncated += split->data.InputLength(example) > config.input_length;
  json["truncated"] = truncated;
  return json;
}

// Every answer, a file a task: what a score is made of, to be read later.
common::Status WritePredictions(const std::filesystem::path& folder, const std::vector<ScoredTask>& tasks,
                                const std::vector<ScoredAnswers>& all) {
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(folder));
  for (size_t t = 0; t < tasks.size(); ++t) {
    std::string lines;
    for (const SplitAnswers& split : all[t].answers)
      for (size_t i = 0; i < split.answers.size(); ++i)
        lines += PredictionOf(tasks[t].task, split, i).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    ALLO_RETURN_IF_ERROR(common::WriteFileAtomically(folder / (tasks[t].task.name() + ".jsonl"), lines));
  }
  return common::Ok();
}

Json TasksReport(const FinetuneBatches& batches, const std::vector<ScoredTask>& tasks) {
  Json report = Json::object();
  for (size_t t = 0; t < tasks.size(); ++t) {
    const FinetuneBatches::TaskCounts& counts = batches.counts()[t];
    report[tasks[t].task.name()] = {{"train_examples", counts.examples},
                                    {"held_out", tasks[t].holdout ? tasks[t].holdout->examples.size() : 0},
                                    {"truncated_train", counts.truncated},
                                    {"targets_cut", counts.targets_cut}};
  }
  return report;
}

Ending Finish(const RunContext& context, const TrainingSession& session, const FinetuneConfig& config,
              const FinetuneBatches& batches, const std::vector<ScoredTask>& tasks,
              const std::vector<ScoredAnswers>& all) {
  const std::map<std::string, double> metrics = session.Metrics({config.input_length, config.target_length});
  auto outputs = session.WriteModel();
  if (!outputs) return {ExitCode::kCrash, outputs.error().message};
  if (auto written = WritePredictions(context.run_directory / "predictions", tasks, all); !written)
    return {ExitCode::kCrash, written.error().message};
  (*outputs)["predictions"] = "predictions";
  Json scores = Json::array(), report = session.Report();
  int64_t truncated = 0;
  for (size_t t = 0; t < tasks.size(); ++t) {
    scores.push_back(ScoreToJson(tasks[t], all[t], config));
    truncated += scores.back()["truncated"].get<int64_t>();
  }
  report["epochs"] = batches.Epochs(session.summary().steps);
  report["truncated_train"] = batches.truncated();
  report["truncated_valid"] = truncated;
  report["select"] = config.select;
  report["stopped_early"] = session.summary().steps < config.training.steps;
  report["tasks"] = TasksReport(batches, tasks);
  return WriteResult(context, metrics, scores, *outputs, report);
}

// The selected weights' scores, as the last point of the series "valid/<task>" too.
common::Status WriteScorePoints(const RunContext& context, int64_t step, const std::vector<ScoredTask>& tasks,
                                const std::vector<ScoredAnswers>& all) {
  std::map<std::string, double> values;
  for (size_t t = 0; t < tasks.size(); ++t) values["valid/" + tasks[t].task.name()] = all[t].score.value;
  return context.events.Metric(step, values);
}

}  // namespace

Ending RunFinetune(const RunContext& context) {
  auto config = ParseFinetune(context.config.run);
  if (!config) return EndingOf(config.error());
  auto data_folder = InputFolder(context, "data");
  if (!data_folder) return EndingOf(data_folder.error());
  auto parent_folder = InputFolder(context, "model");
  if (!parent_folder) return EndingOf(parent_folder.error());
  auto data = Dataset::Open(*data_folder);
  if (!data) return EndingOfData(data.error());
  auto tasks = OpenTasks(*data, *config);
  if (!tasks) return EndingOfData(tasks.error());
  auto batches = OpenBatches(*tasks, *config);
  if (!batches) return EndingOfData(batches.error());
  auto session = TrainingSession::Open(context, config->training);
  if (!session) return EndingOf(session.error());
  if (auto loaded = (*session)->LoadParent(*parent_folder); !loaded) return EndingOf(loaded.error());
  LoopWork work;
  const bool on_gpu = (*session)->device().is_cuda();
  work.make_batch = [&](int64_t step) { return TrainingBatch(*batches, *config, on_gpu, step); };
  work.select_best = config->select == "best";
  work.early_stop = config->early_stop;
  // The last weights' scores are measured below; without selection nothing else is asked at the end.
  work.evaluate = [&](ModelState& state, bool last) -> std::optional<Evaluation> {
    if (last && !work.select_best) return Evaluation{};
    return EvaluateForSelection(state, (*session)->device(), *tasks);
  };
  std::optional<std::vector<ScoredAnswers>> all;
  work.finish = [&](ModelState& state) {
    all = AskAll(state, (*session)->device(), *tasks);
    return all.has_value();
  };
  work.input_length = config->input_length;
  const Ending ending = (*session)->Train(work);
  if (ending.code != ExitCode::kDone || !(*session)->is_first()) return ending;
  if (auto written = WriteScorePoints(context, (*session)->summary().steps, *tasks, *all); !written)
    return {ExitCode::kCrash, written.error().message};
  return Finish(context, **session, *config, *batches, *tasks, *all);
}

}  // namespace allometry::trainer
