#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/result.h"
#include "worker/trainer/data/dataset.h"
#include "worker/trainer/data/permutation.h"
#include "worker/trainer/data/span_corruption.h"

// Batches as pure functions of (seed, step, row): any order, thread, restart or division of the rows sees the same
// ones. No class here has state that changes; all are thread-safe.
namespace allometry::trainer {

// Training batches of span corruption. The training text, documents joined by end marks, is cut into sequences of the
// raw length (the rest that does not fill one is left out); each epoch visits every sequence once, in an order of its
// own.
class PretrainBatches {
 public:
  // Dataset must outlive the batches. kInvalidArgument: lengths that cannot be (see SpanCorruption::Create); kDataLoss:
  // the training text is shorter than one sequence. `batch_sequences` >= 1.
  static common::Result<PretrainBatches> Create(const Dataset& data, int64_t input_length, double noise_density,
                                                double mean_span_length, int64_t batch_sequences, uint64_t seed);

  const arch::SpanCorruptionLengths& lengths() const { return corruption_.lengths(); }
  int64_t sequences() const { return sequences_; }  // of one epoch
  // Passes over the text that `steps` steps make; above 1, text is repeated.
  double Epochs(int64_t steps) const;

  // Rows first_row … first_row + rows - 1 of step `step` (any number >= 0) into inputs [rows, inputs_width] and targets
  // [rows, targets_width], row by row; widths are at least lengths().inputs and .targets, the rest is padding (0).
  void Fill(int64_t step, int64_t first_row, int64_t rows, int64_t inputs_width, int64_t targets_width, int64_t* inputs,
            int64_t* targets) const;

 private:
  PretrainBatches(const Dataset& data, SpanCorruption corruption) : data_(&data), corruption_(corruption) {}
  const Dataset* data_;
  SpanCorruption corruption_;
  int64_t sequences_ = 0, batch_sequences_ = 0;
  uint64_t seed_ = 0;
};

// The validation set of span corruption: the same sequences, masks and targets for every run, whatever its seed.
class ValidationBatches {
 public:
  // At most `max_examples` sequences (0 = all), spread over the validation text. kDataLoss: it is shorter than one.
  static common::Result<ValidationBatches> Create(const Dataset& data, int64_t input_length, double noise_density,
                                                  double mean_span_length, int64_t max_examples);
  const arch::SpanCorruptionLengths& lengths() const { return corruption_.lengths(); }
  int64_t size() const { return size_; }
  // As PretrainBatches::Fill, for sequences first … first + rows - 1.
  void Fill(int64_t first, int64_t rows, int64_t inputs_width, int64_t targets_width, int64_t* inputs,
            int64_t* targets) const;
  // Mean of Dataset::unigram_nll over the text targets of the whole set: nats per token.
  double UnigramLoss() const;

 private:
  ValidationBatches(const Dataset& data, SpanCorruption corruption) : data_(&data), corruption_(corruption) {}
  const Dataset* data_;
  SpanCorruption corruption_;
  int64_t size_ = 0, stored_ = 0;
};

}  // namespace allometry::trainer
