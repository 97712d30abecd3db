#pragma once

#include <cstdint>
#include <vector>

#include "common/result.h"
#include "worker/trainer/tasks/task_data.h"

// Fine-tuning batches as pure functions of (seed, step, row), as batches.h has them for pretraining. Thread-safe.
namespace allometry::trainer {

// One task's part in fine-tuning.
struct TaskShare {
  TaskData task;
  int64_t max_train = 0;  // examples used of the training split, from its start; 0 = all
  // Examples of those that are held out for selection, ascending: never trained on.
  std::vector<int64_t> held_out = {};
};

// Training batches of the mixture of tasks: an epoch holds min(size, cap) examples of each task, every one once, in an
// order of its own; a task with more than `cap` examples goes on with the next ones in the next epoch.
class FinetuneBatches {
 public:
  // Inputs are cut to inputs_width (their last token the end mark), answers that are free text to targets_width (then
  // without one). cap 0 = none. `shuffle_labels`: each task's training answers change places by a permutation of the
  // seed; validation keeps its own. kInvalidArgument: no task, or a label longer than targets_width; kDataLoss: a task
  // without training examples.
  static common::Result<FinetuneBatches> Create(std::vector<TaskShare> tasks, int64_t cap, int64_t inputs_width,
                                                int64_t targets_width, int64_t batch_sequences, uint64_t seed,
                                                bool shuffle_labels);

  // What is used of one task's training split, each example counted once.
  struct TaskCounts {
    int64_t examples = 0;
    int64_t truncated = 0;    // inputs longer than inputs_width
    int64_t targets_cut = 0;  // answers longer than targets_width
  };

  int64_t epoch_examples() const { return epoch_examples_; }
  double Epochs(int64_t steps) const;
  const std::vector<TaskCounts>& counts() const { return counts_; }  // in the order of the tasks
  int64_t truncated() const;                                         // over all tasks

  // Rows first_row … of step `step` into inputs [rows, inputs_width] and targets [rows, targets_width], padded with 0.
  void Fill(int64_t step, int64_t first_row, int64_t rows, int64_t* inputs, int64_t* targets) const;

 private:
  struct Part {
    TaskData task;
    std::vector<int64_t> examples;  // in use
    std::vector<int64_t> answers;   // whose answer goes with each of them: their own, unless shuffled
    int64_t share = 0;              // of an epoch
  };
  struct Place {
    const Part* part;
    int64_t number;  // of an example in use
  };
  FinetuneBatches() = default;
  common::Status AddPart(TaskShare share, int64_t cap, bool shuffle_labels);
  TaskCounts CountOf(const Part& part) const;
  Place Find(uint64_t row_number) const;
  std::vector<Part> parts_;
  std::vector<TaskCounts> counts_;
  int64_t epoch_examples_ = 0, inputs_width_ = 0, targets_width_ = 0, batch_sequences_ = 0;
  uint64_t seed_ = 0;
};

// At least one and, but for a last group, no more than min(most, a tenth) of the first `used` training examples, to
// select checkpoints by: the same ones whatever the run's seed. Examples of one passage or question go together, since
// they tell of each other. Ascending. kDataLoss: they are all of one passage.
common::Result<std::vector<int64_t>> HoldOut(const TaskSplit& train, int64_t used, int64_t most);

}  // namespace allometry::trainer
