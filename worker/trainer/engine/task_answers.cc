#include "worker/trainer/engine/task_answers.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "worker/trainer/engine/greedy.h"
#include "worker/trainer/engine/rank.h"
#include "worker/trainer/engine/stop_signal.h"

namespace allometry::trainer {
namespace {

constexpr size_t kAnswerRows = 64;  // inputs at once
constexpr int64_t kWidthStep = 8;

// From the shortest to the longest input, so that a batch is padded little.
std::vector<int64_t> ByLength(const TaskSplit& split, std::span<const int64_t> examples) {
  std::vector<int64_t> order(examples.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::ranges::stable_sort(order, {}, [&](int64_t i) { return split.InputLength(examples[static_cast<size_t>(i)]); });
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

// Each row's choices, from the first row's first on. Those of an example's own are cut to `longest` tokens, as targets
// in training are.
std::vector<Candidate> Candidates(const TaskData& task, const TaskSplit& split, std::span<const int64_t> examples,
                                  int64_t longest) {
  std::vector<Candidate> candidates;
  for (size_t row = 0; row < examples.size(); ++row) {
    const std::vector<std::string>& own = split.facts(examples[row]).choices;
    const size_t count = own.empty() ? task.labels().size() : own.size();
    for (size_t c = 0; c < count; ++c) {
      std::vector<int32_t> tokens = own.empty() ? task.label_tokens()[c] : task.Encode(own[c]);
      tokens.resize(std::min(tokens.size(), static_cast<size_t>(longest)));
      candidates.push_back({static_cast<int64_t>(row), std::move(tokens)});
    }
  }
  return candidates;
}

// Of equally likely choices the first.
std::vector<std::string> RankedAnswers(Model& model, const at::Tensor& inputs_bs, const TaskData& task,
                                       const TaskSplit& split, std::span<const int64_t> examples,
                                       int64_t target_length) {
  const std::vector<double> likelihoods =
      LogLikelihoods(model, inputs_bs, Candidates(task, split, examples, target_length));
  auto first = likelihoods.begin();
  std::vector<std::string> answers;
  for (int64_t example : examples) {
    const std::vector<std::string>& choices = task.Choices(split.facts(example));
    const auto last = first + static_cast<std::ptrdiff_t>(choices.size());
    answers.push_back(choices[static_cast<size_t>(std::max_element(first, last) - first)]);
    first = last;
  }
  return answers;
}

std::vector<std::string> WrittenAnswers(Model& model, const at::Tensor& inputs_bs, const TaskData& task,
                                        int64_t target_length) {
  // One token more than the longest label, so that an overlong answer is seen as one.
  const int64_t tokens = task.labels().empty() ? target_length : task.LongestTarget() + 1;
  std::vector<std::string> answers;
  for (const std::vector<int64_t>& ids : DecodeGreedily(model, inputs_bs, tokens))
    answers.push_back(task.AnswerText(ids));
  return answers;
}

}  // namespace

int64_t UsedWidth(const at::Tensor& ids_bs) {
  const at::Tensor used = ids_bs.ne(0).any(0).nonzero();
  const int64_t last = used.numel() ? used.max().item<int64_t>() + 1 : 1;
  return std::min((last + kWidthStep - 1) / kWidthStep * kWidthStep, ids_bs.size(1));
}

std::optional<std::vector<std::string>> AnswerExamples(ModelState& state, const at::Device& device,
                                                       const TaskData& task, const TaskSplit& split,
                                                       std::span<const int64_t> examples,
                                                       const AnswerOptions& options) {
  const std::vector<int64_t> order = ByLength(split, examples);
  std::vector<std::string> answers(order.size());
  for (size_t first = 0; first < order.size(); first += kAnswerRows) {
    if (StopRequested()) return std::nullopt;
    std::vector<int64_t> rows;
    for (size_t i = first; i < std::min(first + kAnswerRows, order.size()); ++i)
      rows.push_back(examples[static_cast<size_t>(order[i])]);
    const at::Tensor inputs = Inputs(split, rows, options.input_length).to(device);
    std::vector<std::string> batch =
        options.decoding == Decoding::kRank
            ? RankedAnswers(state.model(), inputs, task, split, rows, options.target_length)
            : WrittenAnswers(state.model(), inputs, task, options.target_length);
    for (size_t i = 0; i < batch.size(); ++i) answers[static_cast<size_t>(order[first + i])] = std::move(batch[i]);
  }
  return answers;
}

}  // namespace allometry::trainer
