#include "worker/trainer/data/batches.h"

#include <algorithm>
#include <stdexcept>

namespace allometry::trainer {
namespace {

// Keys that keep the draws of different purposes apart.
constexpr uint64_t kOrderKey = 0x6f72646572, kMaskKey = 0x6d61736b73;
// The validation set has a seed of its own: it belongs to the data and not to a run.
constexpr uint64_t kValidationSeed = 0x76616c6964;

uint64_t Key(uint64_t seed, uint64_t purpose, uint64_t part) { return Mix64(Mix64(Mix64(seed) ^ purpose) ^ part); }

std::string Shortage(const char* which, int64_t tokens, const char* advice, int64_t raw) {
  return std::string("the ") + which + " text has " + std::to_string(tokens) + " tokens, fewer than one sequence of " +
         std::to_string(raw) + ": " + advice;
}

// Corrupts one stored sequence into a row of each array, padded.
class RowFiller {
 public:
  RowFiller(const TokenFile& text, const SpanCorruption& corruption, int64_t inputs_width, int64_t targets_width)
      : text_(text), corruption_(corruption), inputs_width_(inputs_width), targets_width_(targets_width) {
    const arch::SpanCorruptionLengths& n = corruption.lengths();
    if (inputs_width < n.inputs || targets_width < n.targets)
      throw std::invalid_argument("a batch is narrower than its sequences");
    raw_.resize(static_cast<size_t>(n.raw));
    inputs_.resize(static_cast<size_t>(n.inputs));
    targets_.resize(static_cast<size_t>(n.targets));
  }

  void Fill(int64_t sequence, KeyedRandom random, int64_t* inputs, int64_t* targets) {
    text_.Read(sequence * corruption_.lengths().raw, raw_);
    corruption_.Corrupt(raw_, random, inputs_, targets_);
    std::fill(std::copy(inputs_.begin(), inputs_.end(), inputs), inputs + inputs_width_, kPad);
    std::fill(std::copy(targets_.begin(), targets_.end(), targets), targets + targets_width_, kPad);
  }

 private:
  const TokenFile& text_;
  const SpanCorruption& corruption_;
  int64_t inputs_width_, targets_width_;
  std::vector<int32_t> raw_, inputs_, targets_;
};

}  // namespace

common::Result<PretrainBatches> PretrainBatches::Create(const Dataset& data, int64_t input_length, double noise_density,
                                                        double mean_span_length, int64_t batch_sequences,
                                                        uint64_t seed) {
  if (batch_sequences < 1) return common::InvalidArgument("batch_sequences must be at least 1");
  ALLO_ASSIGN_OR_RETURN(
      const SpanCorruption corruption,
      SpanCorruption::Create(input_length, noise_density, mean_span_length, data.tokenizer().pieces()));
  PretrainBatches batches(data, corruption);
  batches.sequences_ = data.train().tokens() / corruption.lengths().raw;
  batches.batch_sequences_ = batch_sequences;
  batches.seed_ = seed;
  if (batches.sequences_ < 1)
    return common::DataLoss(Shortage("training", data.train().tokens(), "bring more text or shorten input_length",
                                     corruption.lengths().raw));
  return batches;
}

double PretrainBatches::Epochs(int64_t steps) const {
  return static_cast<double>(steps) * static_cast<double>(batch_sequences_) / static_cast<double>(sequences_);
}

void PretrainBatches::Fill(int64_t step, int64_t first_row, int64_t rows, int64_t inputs_width, int64_t targets_width,
                           int64_t* inputs, int64_t* targets) const {
  RowFiller filler(data_->train(), corruption_, inputs_width, targets_width);
  const auto per_epoch = static_cast<uint64_t>(sequences_);
  for (int64_t r = 0; r < rows; ++r) {
    const auto number =
        static_cast<uint64_t>(step) * static_cast<uint64_t>(batch_sequences_) + static_cast<uint64_t>(first_row + r);
    const Permutation order(per_epoch, Key(seed_, kOrderKey, number / per_epoch));
    const auto sequence = static_cast<int64_t>(order(number % per_epoch));
    // The row's place in the run is the key, so that a repeated sequence is masked anew.
    filler.Fill(sequence, KeyedRandom(seed_, kMaskKey, number), inputs + r * inputs_width, targets + r * targets_width);
  }
}

common::Result<ValidationBatches> ValidationBatches::Create(const Dataset& data, int64_t input_length,
                                                            double noise_density, double mean_span_length,
                                                            int64_t max_examples) {
  ALLO_ASSIGN_OR_RETURN(
      const SpanCorruption corruption,
      SpanCorruption::Create(input_length, noise_density, mean_span_length, data.tokenizer().pieces()));
  ValidationBatches batches(data, corruption);
  batches.stored_ = data.valid().tokens() / corruption.lengths().raw;
  batches.size_ = max_examples > 0 ? std::min(max_examples, batches.stored_) : batches.stored_;
  if (batches.size_ < 1)
    return common::DataLoss(Shortage("validation", data.valid().tokens(),
                                     "raise validation_fraction, bring more text or shorten input_length",
                                     corruption.lengths().raw));
  return batches;
}

void ValidationBatches::Fill(int64_t first, int64_t rows, int64_t inputs_width, int64_t targets_width, int64_t* inputs,
                             int64_t* targets) const {
  if (first < 0 || first + rows > size_) throw std::out_of_range("ValidationBatches::Fill beyond the set");
  RowFiller filler(data_->valid(), corruption_, inputs_width, targets_width);
  const Permutation order(static_cast<uint64_t>(stored_), kValidationSeed);
  for (int64_t r = 0; r < rows; ++r) {
    const auto sequence = static_cast<int64_t>(order(static_cast<uint64_t>(first + r)));
    filler.Fill(sequence, KeyedRandom(kValidationSeed, kMaskKey, static_cast<uint64_t>(sequence)),
                inputs + r * inputs_width, targets + r * targets_width);
  }
}

double ValidationBatches::UnigramLoss() const {
  std::vector<int64_t> inputs(static_cast<size_t>(lengths().inputs)), targets(static_cast<size_t>(lengths().targets));
  double sum = 0;
  int64_t tokens = 0;
  for (int64_t i = 0; i < size_; ++i) {
    Fill(i, 1, lengths().inputs, lengths().targets, inputs.data(), targets.data());
    for (int64_t id : targets) {
      if (!data_->tokenizer().IsText(id)) continue;
      sum += data_->unigram_nll()[static_cast<size_t>(id)];
      ++tokens;
    }
  }
  return sum / static_cast<double>(std::max<int64_t>(tokens, 1));
}

}  // namespace allometry::trainer
