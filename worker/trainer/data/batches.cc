#include "worker/trainer/data/batches.h"

#include <algorithm>

#include "worker/trainer/data/permutation.h"
#include "worker/trainer/data/random.h"
#include "worker/trainer/data/token_ids.h"

namespace allometry::trainer {
namespace {

// Keys that keep the draws of different purposes apart.
constexpr uint64_t kOrderKey = 0x6f72646572, kLabelKey = 0x6c6162656c, kExampleKey = 0x6578616d70;

uint64_t Key(uint64_t seed, uint64_t purpose, uint64_t part) { return Mix64(Mix64(Mix64(seed) ^ purpose) ^ part); }

}  // namespace

common::Result<FinetuneBatches> FinetuneBatches::Create(std::vector<TaskShare> tasks, int64_t cap, int64_t inputs_width,
                                                        int64_t targets_width, int64_t batch_sequences, uint64_t seed,
                                                        bool shuffle_labels) {
  if (tasks.empty()) return common::InvalidArgument("fine-tuning needs at least one task");
  if (batch_sequences < 1) return common::InvalidArgument("batch_sequences must be at least 1");
  FinetuneBatches batches;
  for (TaskShare& share : tasks) {
    Part part{.task = std::move(share.task)};
    const TaskSplit& train = part.task.train();
    part.size = share.max_train > 0 ? std::min(share.max_train, train.size()) : train.size();
    part.share = cap > 0 ? std::min(cap, part.size) : part.size;
    if (part.size < 1) return common::DataLoss("task '" + part.task.name() + "' has no training examples");
    if (part.task.LongestLabel() > targets_width)
      return common::InvalidArgument("target_length is " + std::to_string(targets_width) +
                                     ", and the labels of task '" + part.task.name() + "' need " +
                                     std::to_string(part.task.LongestLabel()) + " tokens");
    const Permutation shuffled(static_cast<uint64_t>(part.size), Key(seed, kLabelKey, batches.parts_.size()));
    for (int64_t i = 0; i < part.size; ++i) {
      const auto from = shuffle_labels ? static_cast<int64_t>(shuffled(static_cast<uint64_t>(i))) : i;
      part.labels.push_back(train.Label(from));
      batches.truncated_ += train.InputLength(i) > inputs_width;
    }
    batches.epoch_examples_ += part.share;
    batches.parts_.push_back(std::move(part));
  }
  batches.inputs_width_ = inputs_width;
  batches.targets_width_ = targets_width;
  batches.batch_sequences_ = batch_sequences;
  batches.seed_ = seed;
  return batches;
}

double FinetuneBatches::Epochs(int64_t steps) const {
  return static_cast<double>(steps) * static_cast<double>(batch_sequences_) / static_cast<double>(epoch_examples_);
}

FinetuneBatches::Place FinetuneBatches::Find(uint64_t row_number) const {
  const auto per_epoch = static_cast<uint64_t>(epoch_examples_);
  const uint64_t epoch = row_number / per_epoch;
  auto slot = static_cast<int64_t>(Permutation(per_epoch, Key(seed_, kOrderKey, epoch))(row_number % per_epoch));
  size_t p = 0;
  while (slot >= parts_[p].share) slot -= parts_[p++].share;
  const Part& part = parts_[p];
  // The task's own passes go on through the epochs of the mixture, each in an order of its own.
  const uint64_t number = epoch * static_cast<uint64_t>(part.share) + static_cast<uint64_t>(slot);
  const auto size = static_cast<uint64_t>(part.size);
  const Permutation own(size, Key(Key(seed_, kExampleKey, p), kOrderKey, number / size));
  return {&part, static_cast<int64_t>(own(number % size))};
}

void FinetuneBatches::Fill(int64_t step, int64_t first_row, int64_t rows, int64_t* inputs, int64_t* targets) const {
  std::vector<int32_t> input(static_cast<size_t>(inputs_width_));
  for (int64_t r = 0; r < rows; ++r) {
    const Place place = Find(static_cast<uint64_t>(step) * static_cast<uint64_t>(batch_sequences_) +
                             static_cast<uint64_t>(first_row + r));
    place.part->task.train().FillInput(place.example, input);
    std::copy(input.begin(), input.end(), inputs + r * inputs_width_);
    const auto label = static_cast<size_t>(place.part->labels[static_cast<size_t>(place.example)]);
    const std::vector<int32_t>& target = place.part->task.label_tokens()[label];
    int64_t* row = targets + r * targets_width_;
    std::fill(std::copy(target.begin(), target.end(), row), row + targets_width_, kPad);
  }
}

void FillTaskInputs(const TaskSplit& split, int64_t first, int64_t rows, int64_t inputs_width, int64_t* inputs) {
  std::vector<int32_t> input(static_cast<size_t>(inputs_width));
  for (int64_t r = 0; r < rows; ++r) {
    split.FillInput(first + r, input);
    std::copy(input.begin(), input.end(), inputs + r * inputs_width);
  }
}

int64_t CountTruncated(const TaskSplit& split, int64_t inputs_width) {
  int64_t truncated = 0;
  for (int64_t i = 0; i < split.size(); ++i) truncated += split.InputLength(i) > inputs_width;
  return truncated;
}

}  // namespace allometry::trainer
