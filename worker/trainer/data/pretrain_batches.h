#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/result.h"
#include "worker/trainer/data/dataset.h"
#include "worker/trainer/data/objective.h"
#include "worker/trainer/data/row_schedule.h"
#include "worker/trainer/data/sequences.h"

// Pretraining's batches as pure functions of (seed, step, row): any order, thread, restart or division of the rows sees
// the same ones. No class here has state that changes; all are thread-safe.
namespace allometry::trainer {

// What a number of steps draws from one part of the text.
struct PartUse {
  std::string name;
  double rate = 0;        // share of all rows
  int64_t rows = 0;       // sequences drawn
  int64_t sequences = 0;  // that there are
  int64_t left_out = 0;   // tokens that are in no sequence
  double epochs() const { return static_cast<double>(rows) / static_cast<double>(sequences); }
};

// Training batches. Each part of the text is cut into sequences; a row comes from the part that the rates give it
// (RowSchedule). Each part has epochs of its own: one visits every sequence once, in an order of its own.
class PretrainBatches {
 public:
  // kInvalidArgument: a rate that is not above 0, no part, or `batch_sequences` < 1; kDataLoss: a part is shorter than
  // one sequence.
  static common::Result<PretrainBatches> Create(std::span<const TextPart> parts,
                                                std::shared_ptr<const Objective> objective, Join join,
                                                int64_t batch_sequences, uint64_t seed);

  const arch::ObjectiveLengths& lengths() const { return objective_->lengths(); }
  // Of each part, in the given order. More than one epoch: text was repeated.
  std::vector<PartUse> Use(int64_t steps) const;

  // Rows first_row … first_row + rows - 1 of step `step` (any number >= 0) into inputs [rows, inputs_width] and targets
  // [rows, targets_width], row by row; widths are at least lengths().inputs and .targets, the rest is padding (0).
  void Fill(int64_t step, int64_t first_row, int64_t rows, int64_t inputs_width, int64_t targets_width, int64_t* inputs,
            int64_t* targets) const;

 private:
  PretrainBatches(std::shared_ptr<const Objective> objective, RowSchedule schedule)
      : objective_(std::move(objective)), schedule_(std::move(schedule)) {}
  std::shared_ptr<const Objective> objective_;
  RowSchedule schedule_;
  std::vector<std::string> names_;
  std::vector<double> rates_;
  std::vector<Sequences> texts_;
  int64_t batch_sequences_ = 0;
  uint64_t seed_ = 0;
};

// The validation set: the same sequences, draws and targets for every run, whatever its seed. A smaller set is a prefix
// of a larger one, spread over the text.
class ValidationBatches {
 public:
  // At most `max_examples` sequences (0 = all), as far as every part has text for its share of them. Errors as
  // PretrainBatches::Create.
  static common::Result<ValidationBatches> Create(std::span<const TextPart> parts,
                                                  std::shared_ptr<const Objective> objective, Join join,
                                                  int64_t max_examples);
  const arch::ObjectiveLengths& lengths() const { return objective_->lengths(); }
  int64_t size() const { return size_; }
  // Which part a sequence is from, by its place among the given ones.
  size_t PartOf(int64_t sequence) const { return schedule_(static_cast<uint64_t>(sequence)).part; }

  // As PretrainBatches::Fill, for sequences first … first + rows - 1.
  void Fill(int64_t first, int64_t rows, int64_t inputs_width, int64_t targets_width, int64_t* inputs,
            int64_t* targets) const;
  // Objective::MarkText of the same sequences and their targets, as Fill gave them, into marks [rows, targets_width].
  void MarkText(int64_t first, int64_t rows, int64_t targets_width, const int64_t* targets, uint8_t* marks) const;
  // SHA-256 over all inputs and targets: equal sets have equal ones.
  std::string Sha256() const;

 private:
  ValidationBatches(std::shared_ptr<const Objective> objective, RowSchedule schedule)
      : objective_(std::move(objective)), schedule_(std::move(schedule)) {}
  struct Place {
    size_t part;
    int64_t sequence;  // of the part's text
  };
  Place Find(int64_t row) const;
  std::shared_ptr<const Objective> objective_;
  RowSchedule schedule_;
  std::vector<Sequences> texts_;
  int64_t size_ = 0;
};

}  // namespace allometry::trainer
