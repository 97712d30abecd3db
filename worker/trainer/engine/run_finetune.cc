#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "worker/trainer/data/batches.h"
#include "worker/trainer/data/prepare.h"
#include "worker/trainer/engine/greedy.h"
#include "worker/trainer/engine/run_kinds.h"
#include "worker/trainer/engine/stop_signal.h"

namespace allometry::trainer {
namespace {

using common::Json;
using common::Result;

constexpr int64_t kEvaluationRows = 64;
constexpr int64_t kWidthStep = 8;  // inputs are padded to a multiple of this

// The tasks' validation examples that are asked for.
struct ScoredTask {
  TaskData task;
  int64_t examples = 0;
};

// Columns that hold anything but padding, rounded up; at least one step wide. The rest would only cost time.
int64_t UsedWidth(const at::Tensor& ids_bs) {
  const at::Tensor used = ids_bs.ne(0).any(0).nonzero();
  const int64_t last = used.numel() ? used.max().item<int64_t>() + 1 : 1;
  return std::min((last + kWidthStep - 1) / kWidthStep * kWidthStep, ids_bs.size(1));
}

HostBatch TrainingBatch(const FinetuneBatches& batches, const FinetuneConfig& config, int64_t step) {
  const int64_t rows = config.training.batch_sequences;
  at::Tensor inputs = at::empty({rows, config.input_length}, at::kLong);
  at::Tensor targets = at::empty({rows, config.target_length}, at::kLong);
  batches.Fill(step - 1, 0, rows, inputs.mutable_data_ptr<int64_t>(), targets.mutable_data_ptr<int64_t>());
  const int64_t tokens = targets.ne(0).sum().item<int64_t>();
  const int64_t answer_width = std::max<int64_t>(1, targets.ne(0).sum(1).max().item<int64_t>());
  return {inputs.slice(1, 0, UsedWidth(inputs)).contiguous(), targets.slice(1, 0, answer_width).contiguous(), tokens};
}

// Validation examples from the shortest to the longest input, so that a batch is padded little.
std::vector<int64_t> ByLength(const TaskSplit& split, int64_t examples) {
  std::vector<int64_t> order(static_cast<size_t>(examples));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return split.InputLength(a) < split.InputLength(b); });
  return order;
}

at::Tensor Inputs(const TaskSplit& split, std::span<const int64_t> examples, int64_t width) {
  at::Tensor ids = at::zeros({static_cast<int64_t>(examples.size()), width}, at::kInt);
  for (size_t i = 0; i < examples.size(); ++i)
    split.FillInput(examples[i],
                    {ids.mutable_data_ptr<int32_t>() + static_cast<int64_t>(i) * width, static_cast<size_t>(width)});
  const at::Tensor wide = ids.to(at::kLong);
  return wide.slice(1, 0, UsedWidth(wide)).contiguous();
}

// The labels that the model answers with, -1 for answers that are none. Nothing if a stop was requested meanwhile.
std::optional<std::vector<int32_t>> Answer(ModelState& state, const at::Device& device, const ScoredTask& scored,
                                           int64_t input_length) {
  const std::vector<int64_t> order = ByLength(scored.task.valid(), scored.examples);
  std::vector<int32_t> predicted(order.size(), -1);
  for (size_t first = 0; first < order.size(); first += kEvaluationRows) {
    if (StopRequested()) return std::nullopt;
    const std::span<const int64_t> rows(order.data() + first, std::min<size_t>(kEvaluationRows, order.size() - first));
    const at::Tensor inputs = Inputs(scored.task.valid(), rows, input_length).to(device);
    // LongestLabel counts the end mark: one token more than the longest text, so that an overlong answer is seen as
    // one.
    const auto answers = DecodeGreedily(state.model(), inputs, scored.task.LongestLabel() + 1);
    for (size_t i = 0; i < rows.size(); ++i)
      predicted[static_cast<size_t>(rows[i])] = scored.task.ParseLabel(answers[i]);
  }
  return predicted;
}

std::optional<Evaluation> Evaluate(ModelState& state, const at::Device& device, const std::vector<ScoredTask>& tasks,
                                   int64_t input_length) {
  Evaluation evaluation;
  evaluation.detail = Json::array();
  for (const ScoredTask& scored : tasks) {
    const auto predicted = Answer(state, device, scored, input_length);
    if (!predicted) return std::nullopt;
    const TaskScore score = ScoreTask(scored.task, *predicted);
    evaluation.values["valid/" + score.task] = score.value;
    evaluation.score += score.value / static_cast<double>(tasks.size());
    evaluation.detail.push_back(score.ToJson());
  }
  return evaluation;
}

// Opens the tasks that the run names, for training and for scoring.
Result<std::vector<ScoredTask>> OpenTasks(const Dataset& data, const FinetuneConfig& config) {
  std::vector<ScoredTask> tasks;
  for (const TaskConfig& wanted : config.tasks) {
    auto task = data.OpenTask(wanted.name);
    if (!task) {
      if (task.error().code != common::ErrorCode::kNotFound) return task.error();
      return common::InvalidArgument("run.tasks: " + task.error().message);
    }
    const int64_t size = task->valid().size();
    if (size == 0) return common::DataLoss("task '" + wanted.name + "' has no validation examples");
    // An answer may be one token too long, and is then seen as none.
    const auto& model = config.training.model;
    const int64_t longest = (*arch::FindArchitecture(model.architecture))->LongestLengths(model.options).targets;
    if (task->LongestLabel() + 1 > longest)
      return common::InvalidArgument("run.tasks: an answer to '" + wanted.name + "' takes up to " +
                                     std::to_string(task->LongestLabel() + 1) + " tokens, and the model is built for " +
                                     std::to_string(longest));
    const int64_t examples = wanted.max_valid > 0 ? std::min(wanted.max_valid, size) : size;
    tasks.push_back({std::move(*task), examples});
  }
  return tasks;
}

Result<FinetuneBatches> OpenBatches(const std::vector<ScoredTask>& tasks, const FinetuneConfig& config) {
  std::vector<TaskShare> shares;
  for (size_t i = 0; i < tasks.size(); ++i) shares.push_back({tasks[i].task, config.tasks[i].max_train});
  return FinetuneBatches::Create(std::move(shares), config.mixture_cap, config.input_length, config.target_length,
                                 config.training.batch_sequences, config.training.seed, config.shuffle_labels);
}

Ending Finish(const RunContext& context, const TrainingSession& session, const FinetuneConfig& config,
              const FinetuneBatches& batches, const std::vector<ScoredTask>& tasks) {
  const std::map<std::string, double> metrics = session.Metrics({config.input_length, config.target_length});
  auto outputs = session.WriteModel();
  if (!outputs) return {ExitCode::kCrash, outputs.error().message};
  Json report = session.Report();
  report["epochs"] = batches.Epochs(config.training.steps);
  report["truncated_train"] = batches.truncated();
  int64_t truncated = 0;
  for (const ScoredTask& scored : tasks) truncated += CountTruncated(scored.task.valid(), config.input_length);
  report["truncated_valid"] = truncated;
  report["select"] = config.select;
  return WriteResult(context, metrics, session.summary().final.detail, *outputs, report);
}

Ending EndingOfData(const common::Error& error) { return {ExitCodeOfDataError(error), error.message}; }

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
  work.make_batch = [&](int64_t step) { return TrainingBatch(*batches, *config, step); };
  work.evaluate = [&](ModelState& state, bool /*last*/) {
    return Evaluate(state, (*session)->device(), *tasks, config->input_length);
  };
  work.select_best = config->select == "best";
  work.input_length = config->input_length;
  const Ending ending = (*session)->Train(std::move(work));
  if (ending.code != ExitCode::kDone) return ending;
  return Finish(context, **session, *config, *batches, *tasks);
}

}  // namespace allometry::trainer
