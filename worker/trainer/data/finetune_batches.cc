#include "worker/trainer/data/finetune_batches.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "worker/trainer/data/permutation.h"
#include "worker/trainer/data/random.h"
#include "worker/trainer/data/span_corruption.h"

namespace allometry::trainer {
namespace {

// Keys that keep the draws of different purposes apart.
constexpr uint64_t kRowOrderKey = 0x6f72646572, kLabelKey = 0x6c6162656c, kExampleKey = 0x6578616d70,
                   kHoldOutKey = 0x686f6c646f;

uint64_t Key(uint64_t seed, uint64_t purpose, uint64_t part) { return Mix64(Mix64(Mix64(seed) ^ purpose) ^ part); }

int64_t UsedOf(const TaskShare& share) {
  const int64_t size = share.task.train().size();
  return share.max_train > 0 ? std::min(share.max_train, size) : size;
}

}  // namespace

common::Result<FinetuneBatches> FinetuneBatches::Create(std::vector<TaskShare> tasks, int64_t cap, int64_t inputs_width,
                                                        int64_t targets_width, int64_t batch_sequences, uint64_t seed,
                                                        bool shuffle_labels) {
  if (tasks.empty()) return common::InvalidArgument("fine-tuning needs at least one task");
  if (batch_sequences < 1) return common::InvalidArgument("batch_sequences must be at least 1");
  FinetuneBatches batches;
  batches.inputs_width_ = inputs_width;
  batches.targets_width_ = targets_width;
  batches.batch_sequences_ = batch_sequences;
  batches.seed_ = seed;
  for (TaskShare& share : tasks) ALLO_RETURN_IF_ERROR(batches.AddPart(std::move(share), cap, shuffle_labels));
  return batches;
}

common::Status FinetuneBatches::AddPart(TaskShare share, int64_t cap, bool shuffle_labels) {
  Part part;
  std::vector<int64_t> used(static_cast<size_t>(UsedOf(share)));
  std::iota(used.begin(), used.end(), int64_t{0});
  std::ranges::set_difference(used, share.held_out, std::back_inserter(part.examples));
  part.task = std::move(share.task);
  const auto size = static_cast<int64_t>(part.examples.size());
  if (size < 1) return common::DataLoss("task '" + part.task.name() + "' has no training examples");
  if (!part.task.labels().empty() && part.task.LongestTarget() > targets_width_)
    return common::InvalidArgument("target_length is " + std::to_string(targets_width_) + ", and the labels of task '" +
                                   part.task.name() + "' need " + std::to_string(part.task.LongestTarget()) +
                                   " tokens");
  part.share = cap > 0 ? std::min(cap, size) : size;
  part.answers = part.examples;
  const Permutation shuffled(static_cast<uint64_t>(size), Key(seed_, kLabelKey, parts_.size()));
  for (size_t i = 0; shuffle_labels && i < part.answers.size(); ++i) part.answers[i] = part.examples[shuffled(i)];
  epoch_examples_ += part.share;
  counts_.push_back(CountOf(part));
  parts_.push_back(std::move(part));
  return common::Ok();
}

FinetuneBatches::TaskCounts FinetuneBatches::CountOf(const Part& part) const {
  TaskCounts counts{.examples = static_cast<int64_t>(part.examples.size())};
  for (int64_t example : part.examples) {
    counts.truncated += part.task.train().InputLength(example) > inputs_width_;
    counts.targets_cut += part.task.TargetLength(example) > targets_width_;
  }
  return counts;
}

int64_t FinetuneBatches::truncated() const {
  return std::transform_reduce(counts_.begin(), counts_.end(), int64_t{0}, std::plus<>(),
                               [](const TaskCounts& counts) { return counts.truncated; });
}

double FinetuneBatches::Epochs(int64_t steps) const {
  return static_cast<double>(steps) * static_cast<double>(batch_sequences_) / static_cast<double>(epoch_examples_);
}

FinetuneBatches::Place FinetuneBatches::Find(uint64_t row_number) const {
  const auto per_epoch = static_cast<uint64_t>(epoch_examples_);
  const uint64_t epoch = row_number / per_epoch;
  auto slot = static_cast<int64_t>(Permutation(per_epoch, Key(seed_, kRowOrderKey, epoch))(row_number % per_epoch));
  size_t p = 0;
  while (slot >= parts_[p].share) slot -= parts_[p++].share;
  const Part& part = parts_[p];
  // The task's own passes go on through the epochs of the mixture, each in an order of its own.
  const uint64_t number = epoch * static_cast<uint64_t>(part.share) + static_cast<uint64_t>(slot);
  const uint64_t size = part.examples.size();
  const Permutation own(size, Key(Key(seed_, kExampleKey, p), kRowOrderKey, number / size));
  return {&part, static_cast<int64_t>(own(number % size))};
}

void FinetuneBatches::Fill(int64_t step, int64_t first_row, int64_t rows, int64_t* inputs, int64_t* targets) const {
  std::vector<int32_t> input(static_cast<size_t>(inputs_width_));
  for (int64_t r = 0; r < rows; ++r) {
    const Place place = Find(static_cast<uint64_t>(step) * static_cast<uint64_t>(batch_sequences_) +
                             static_cast<uint64_t>(first_row + r));
    const auto number = static_cast<size_t>(place.number);
    place.part->task.train().FillInput(place.part->examples[number], input);
    std::copy(input.begin(), input.end(), inputs + r * inputs_width_);
    std::vector<int32_t> target = place.part->task.Target(place.part->answers[number]);
    target.resize(static_cast<size_t>(targets_width_), kPad);
    std::copy(target.begin(), target.end(), targets + r * targets_width_);
  }
}

common::Result<std::vector<int64_t>> HoldOut(const TaskSplit& train, int64_t used, int64_t most) {
  std::map<std::pair<int32_t, int32_t>, std::vector<int64_t>> groups;
  for (int64_t i = 0; i < used; ++i) {
    const ExampleFacts& facts = train.facts(i);
    const bool alone = facts.passage < 0 && facts.question < 0;
    groups[alone ? std::pair(-2, static_cast<int32_t>(i))
                 : std::pair(facts.passage, facts.passage < 0 ? facts.question : -1)]
        .push_back(i);
  }
  if (groups.size() < 2) return common::DataLoss("all training examples are of one passage: none can be held out");
  std::vector<const std::vector<int64_t>*> order;
  for (const auto& [key, examples] : groups) order.push_back(&examples);
  const Permutation shuffled(order.size(), kHoldOutKey);
  const int64_t wanted = std::clamp<int64_t>(used / 10, 1, most);
  std::vector<int64_t> held_out;
  for (size_t g = 0; g + 1 < order.size() && static_cast<int64_t>(held_out.size()) < wanted; ++g) {
    const std::vector<int64_t>& group = *order[shuffled(g)];
    held_out.insert(held_out.end(), group.begin(), group.end());
  }
  std::ranges::sort(held_out);
  return held_out;
}

}  // namespace allometry::trainer
