#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "worker/trainer/engine/model_state.h"
#include "worker/trainer/tasks/task_data.h"

namespace allometry::trainer {

// How a model is asked: it writes an answer, the most probable token after the other; or the choice that it finds most
// likely, by the sum of its tokens' log-probabilities, is its answer (rank classification).
enum class Decoding { kGreedy, kRank };

struct AnswerOptions {
  Decoding decoding = Decoding::kGreedy;
  int64_t input_length = 0;   // tokens; longer inputs are cut
  int64_t target_length = 0;  // tokens of a free answer, end mark included
};

// The answers to examples of a split, as texts without blanks around them, in the examples' order. Inputs go through
// the model in batches of similar length. kRank needs a task whose examples have choices. The model must be in
// evaluation mode. Nothing if a stop was requested meanwhile.
std::optional<std::vector<std::string>> AnswerExamples(ModelState& state, const at::Device& device,
                                                       const TaskData& task, const TaskSplit& split,
                                                       std::span<const int64_t> examples, const AnswerOptions& options);

// Columns that hold anything but padding, rounded up to a multiple of eight; at least one. The rest would only cost
// time.
int64_t UsedWidth(const at::Tensor& ids_bs);

// `used` rounded up to a multiple of a `parts`-th of `most`: a GPU's steps are graphs, one for each shape, so batches
// are to have few widths.
inline int64_t RoundedWidth(int64_t used, int64_t most, int64_t parts) {
  const int64_t step = std::max<int64_t>(1, (most + parts - 1) / parts);
  return std::min(most, (used + step - 1) / step * step);
}

}  // namespace allometry::trainer
