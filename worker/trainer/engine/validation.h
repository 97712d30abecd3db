#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <numbers>
#include <optional>
#include <vector>

#include "worker/trainer/distributed/rank_group.h"
#include "worker/trainer/engine/batch_pump.h"
#include "worker/trainer/engine/model_state.h"

namespace allometry::trainer {

// Sums over the targets of a fixed set of sequences, in nats. Text targets are those that the objective marks: text
// that the inputs do not show, and neither padding, end mark nor sentinel.
struct ValidationSums {
  double nll = 0, text_nll = 0, unigram_nll = 0;
  int64_t tokens = 0, text_tokens = 0, text_bytes = 0;
  void Add(const ValidationSums& other);
  double loss() const { return nll / static_cast<double>(std::max<int64_t>(tokens, 1)); }
  double text_loss() const { return text_nll / static_cast<double>(std::max<int64_t>(text_tokens, 1)); }
  double unigram_loss() const { return unigram_nll / static_cast<double>(std::max<int64_t>(text_tokens, 1)); }
  // text_loss in bits and per UTF-8 byte of the text targets.
  double bits_per_byte() const {
    return text_nll / std::numbers::ln2 / static_cast<double>(std::max<int64_t>(text_bytes, 1));
  }
};

// The sums of each part of the text, and of all.
struct ValidationOutcome {
  ValidationSums all;
  std::vector<ValidationSums> parts;
};

struct ValidationRows {
  HostBatch batch;
  std::vector<uint8_t> is_text;  // by row and target: 1 = a text target
  std::vector<size_t> parts;     // by row: which part it is from
};

struct ValidationSet {
  int64_t examples = 0;
  int64_t batch_rows = 32;  // sequences of one batch
  int64_t pass_rows = 32;   // those of a batch that go through the model at once
  std::function<ValidationRows(int64_t first, int64_t rows)> batch;  // a pure function of the rows
  size_t parts = 1;
  std::vector<double> unigram_nll;  // by id: -ln of its share of the training text's tokens
  std::vector<int32_t> text_bytes;  // by id: UTF-8 bytes
};

// What each sequence's encoder reads: its own inputs, or those of the row before it in its batch (of the last row for
// the first), by which a model that does not use its inputs is seen: its loss stays as it is.
enum class ValidationInputs { kOwn, kOfAnotherRow };

// One pass over the set; the model must be in evaluation mode. Returns nothing if a stop was requested meanwhile. With
// a group every rank takes its share of the batches, and all return the same.
std::optional<ValidationOutcome> Validate(ModelState& state, const at::Device& device, const ValidationSet& set,
                                          ValidationInputs inputs = ValidationInputs::kOwn, RankGroup* group = nullptr);

}  // namespace allometry::trainer
