#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/result.h"
#include "worker/trainer/data/dataset.h"

// Batches as pure functions of (seed, step, row): any order, thread, restart or division of the rows sees the same
// ones. No class here has state that changes; all are thread-safe.
namespace allometry::trainer {

// One task's part in fine-tuning.
struct TaskShare {
  TaskData task;
  int64_t max_train = 0;  // examples used of the training split, from its start; 0 = all
};

// Training batches of the mixture of tasks: an epoch holds min(size, cap) examples of each task, every one once, in an
// order of its own; a task with more than `cap` examples goes on with the next ones in the next epoch.
class FinetuneBatches {
 public:
  // Inputs are cut to inputs_width (their last token the end mark). cap 0 = none. `shuffle_labels`: each task's
  // training labels change places by a permutation of the seed; validation keeps its own. kInvalidArgument: no task, or
  // a label longer than targets_width.
  static common::Result<FinetuneBatches> Create(std::vector<TaskShare> tasks, int64_t cap, int64_t inputs_width,
                                                int64_t targets_width, int64_t batch_sequences, uint64_t seed,
                                                bool shuffle_labels);

  int64_t epoch_examples() const { return epoch_examples_; }
  double Epochs(int64_t steps) const;
  // Training inputs that are longer than inputs_width, counted once each.
  int64_t truncated() const { return truncated_; }

  // Rows first_row … of step `step` into inputs [rows, inputs_width] and targets [rows, targets_width], padded with 0.
  void Fill(int64_t step, int64_t first_row, int64_t rows, int64_t* inputs, int64_t* targets) const;

 private:
  struct Part {
    TaskData task;
    int64_t size = 0;   // training examples in use
    int64_t share = 0;  // of an epoch
    std::vector<int32_t> labels;
  };
  struct Place {
    const Part* part;
    int64_t example;
  };
  FinetuneBatches() = default;
  Place Find(uint64_t row_number) const;
  std::vector<Part> parts_;
  int64_t epoch_examples_ = 0, inputs_width_ = 0, targets_width_ = 0, batch_sequences_ = 0, truncated_ = 0;
  uint64_t seed_ = 0;
};

// Validation inputs first … first + rows - 1 of a task, [rows, inputs_width], padded with 0.
void FillTaskInputs(const TaskSplit& split, int64_t first, int64_t rows, int64_t inputs_width, int64_t* inputs);
// Inputs of a split that are longer than inputs_width.
int64_t CountTruncated(const TaskSplit& split, int64_t inputs_width);

}  // namespace allometry::trainer
