#include "worker/trainer/data/pretrain_batches.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "common/sha256.h"
#include "worker/trainer/data/permutation.h"

namespace allometry::trainer {
namespace {

// Keys that keep the draws of different purposes apart; a part's place among its like is added to them.
constexpr uint64_t kOrderKey = 0x6f72646572, kMaskKey = 0x6d61736b73;
// The validation set has a seed of its own: it belongs to the data and not to a run.
constexpr uint64_t kValidationSeed = 0x76616c6964;

uint64_t OrderKey(uint64_t seed, size_t part, uint64_t epoch) {
  return Mix64(Mix64(Mix64(seed) ^ (kOrderKey + part)) ^ epoch);
}

common::Result<RowSchedule> ScheduleOf(std::span<const TextPart> parts) {
  if (parts.empty()) return common::InvalidArgument("pretraining needs at least one part of text");
  std::vector<double> rates;
  for (const TextPart& part : parts) {
    if (!(part.rate > 0 && std::isfinite(part.rate)))
      return common::InvalidArgument("the rate of text part '" + part.name + "' is " + std::to_string(part.rate) +
                                     ", and must be a number above 0");
    rates.push_back(part.rate);
  }
  return RowSchedule(rates);
}

common::Result<Sequences> Cut(const TokenFile& text, Join join, int64_t raw, const std::string& which,
                              const char* advice) {
  Sequences sequences(text, join, raw);
  if (sequences.size() > 0) return sequences;
  return common::DataLoss("the " + which + " has " + std::to_string(text.tokens()) +
                          " tokens, fewer than one sequence of " + std::to_string(raw) + ": " + advice);
}

// "training text" where there is one part, else with its name.
std::string TextName(const char* split, std::span<const TextPart> parts, size_t part) {
  return std::string(split) + " text" + (parts.size() > 1 ? " of '" + parts[part].name + "'" : "");
}

// Makes an example of one sequence into a row of each array, padded.
class RowFiller {
 public:
  RowFiller(const Objective& objective, int64_t inputs_width, int64_t targets_width)
      : objective_(objective), inputs_width_(inputs_width), targets_width_(targets_width) {
    const arch::ObjectiveLengths& n = objective.lengths();
    if (inputs_width < n.inputs || targets_width < n.targets)
      throw std::invalid_argument("a batch is narrower than its sequences");
    inputs_.resize(static_cast<size_t>(n.inputs));
    targets_.resize(static_cast<size_t>(n.targets));
  }

  void Fill(const Sequences& text, int64_t sequence, KeyedRandom random, int64_t* inputs, int64_t* targets) {
    text.Read(sequence, &raw_);
    objective_.Apply(raw_, random, inputs_, targets_);
    std::fill(std::copy(inputs_.begin(), inputs_.end(), inputs), inputs + inputs_width_, kPad);
    std::fill(std::copy(targets_.begin(), targets_.end(), targets), targets + targets_width_, kPad);
  }

 private:
  const Objective& objective_;
  int64_t inputs_width_, targets_width_;
  std::vector<int32_t> raw_, inputs_, targets_;
};

}  // namespace

common::Result<PretrainBatches> PretrainBatches::Create(std::span<const TextPart> parts,
                                                        std::shared_ptr<const Objective> objective, Join join,
                                                        int64_t batch_sequences, uint64_t seed) {
  if (batch_sequences < 1) return common::InvalidArgument("batch_sequences must be at least 1");
  ALLO_ASSIGN_OR_RETURN(RowSchedule schedule, ScheduleOf(parts));
  PretrainBatches batches(std::move(objective), std::move(schedule));
  batches.batch_sequences_ = batch_sequences;
  batches.seed_ = seed;
  for (size_t p = 0; p < parts.size(); ++p) {
    ALLO_ASSIGN_OR_RETURN(Sequences text,
                          Cut(parts[p].train, join, batches.lengths().raw, TextName("training", parts, p),
                              "bring more text or shorten input_length"));
    batches.texts_.push_back(std::move(text));
    batches.names_.push_back(parts[p].name);
    batches.rates_.push_back(parts[p].rate);
  }
  return batches;
}

std::vector<PartUse> PretrainBatches::Use(int64_t steps) const {
  const double total = std::accumulate(rates_.begin(), rates_.end(), 0.0);
  const auto rows = static_cast<uint64_t>(steps) * static_cast<uint64_t>(batch_sequences_);
  std::vector<PartUse> use;
  for (size_t p = 0; p < texts_.size(); ++p)
    use.push_back({names_[p], rates_[p] / total, static_cast<int64_t>(schedule_.Count(p, rows)), texts_[p].size(),
                   texts_[p].left_out()});
  return use;
}

void PretrainBatches::Fill(int64_t step, int64_t first_row, int64_t rows, int64_t inputs_width, int64_t targets_width,
                           int64_t* inputs, int64_t* targets) const {
  RowFiller filler(*objective_, inputs_width, targets_width);
  for (int64_t r = 0; r < rows; ++r) {
    const auto number =
        static_cast<uint64_t>(step) * static_cast<uint64_t>(batch_sequences_) + static_cast<uint64_t>(first_row + r);
    const auto [part, index] = schedule_(number);
    const auto per_epoch = static_cast<uint64_t>(texts_[part].size());
    const Permutation order(per_epoch, OrderKey(seed_, part, index / per_epoch));
    const auto sequence = static_cast<int64_t>(order(index % per_epoch));
    // The row's place in the run is the key, so that a repeated sequence is masked anew.
    filler.Fill(texts_[part], sequence, KeyedRandom(seed_, kMaskKey, number), inputs + r * inputs_width,
                targets + r * targets_width);
  }
}

common::Result<ValidationBatches> ValidationBatches::Create(std::span<const TextPart> parts,
                                                            std::shared_ptr<const Objective> objective, Join join,
                                                            int64_t max_examples) {
  ALLO_ASSIGN_OR_RETURN(RowSchedule schedule, ScheduleOf(parts));
  ValidationBatches batches(std::move(objective), std::move(schedule));
  int64_t stored = 0;
  for (size_t p = 0; p < parts.size(); ++p) {
    ALLO_ASSIGN_OR_RETURN(Sequences text,
                          Cut(parts[p].valid, join, batches.lengths().raw, TextName("validation", parts, p),
                              "raise validation_fraction, bring more text or shorten input_length"));
    stored += text.size();
    batches.texts_.push_back(std::move(text));
  }
  const auto fits = [&](int64_t rows) {
    for (size_t p = 0; p < parts.size(); ++p)
      if (batches.schedule_.Count(p, static_cast<uint64_t>(rows)) > static_cast<uint64_t>(batches.texts_[p].size()))
        return false;
    return true;
  };
  // The most rows that fit, by bisection: counts never fall.
  int64_t most = (max_examples > 0 ? std::min(max_examples, stored) : stored) + 1;
  while (batches.size_ + 1 < most) {
    const int64_t middle = (batches.size_ + most) / 2;
    (fits(middle) ? batches.size_ : most) = middle;
  }
  return batches;
}

ValidationBatches::Place ValidationBatches::Find(int64_t row) const {
  const auto [part, index] = schedule_(static_cast<uint64_t>(row));
  const Permutation order(static_cast<uint64_t>(texts_[part].size()), kValidationSeed);
  return {part, static_cast<int64_t>(order(index))};
}

void ValidationBatches::Fill(int64_t first, int64_t rows, int64_t inputs_width, int64_t targets_width, int64_t* inputs,
                             int64_t* targets) const {
  if (first < 0 || first + rows > size_) throw std::out_of_range("ValidationBatches::Fill beyond the set");
  RowFiller filler(*objective_, inputs_width, targets_width);
  for (int64_t r = 0; r < rows; ++r) {
    const auto [part, sequence] = Find(first + r);
    filler.Fill(texts_[part], sequence, KeyedRandom(kValidationSeed, kMaskKey + part, static_cast<uint64_t>(sequence)),
                inputs + r * inputs_width, targets + r * targets_width);
  }
}

void ValidationBatches::MarkText(int64_t first, int64_t rows, int64_t targets_width, const int64_t* targets,
                                 uint8_t* marks) const {
  for (int64_t r = 0; r < rows; ++r) {
    const auto [part, sequence] = Find(first + r);
    const std::vector<int32_t> row(targets + r * targets_width, targets + (r + 1) * targets_width);
    objective_->MarkText(row, KeyedRandom(kValidationSeed, kMaskKey + part, static_cast<uint64_t>(sequence)),
                         {marks + r * targets_width, static_cast<size_t>(targets_width)});
  }
}

std::string ValidationBatches::Sha256() const {
  const arch::ObjectiveLengths& n = lengths();
  std::vector<int64_t> row(static_cast<size_t>(n.inputs + n.targets));
  common::Sha256 hash;
  for (int64_t i = 0; i < size_; ++i) {
    Fill(i, 1, n.inputs, n.targets, row.data(), row.data() + n.inputs);
    hash.Update({reinterpret_cast<const char*>(row.data()), row.size() * sizeof(int64_t)});
  }
  return hash.FinishHex();
}

}  // namespace allometry::trainer
