#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "worker/trainer/engine/batch_pump.h"
#include "worker/trainer/engine/model_state.h"

namespace allometry::trainer {

// Sums over the targets of a fixed set of sequences, in nats. Text targets are those that are neither padding, end mark
// nor sentinel.
struct ValidationSums {
  double nll = 0, text_nll = 0, unigram_nll = 0;
  int64_t tokens = 0, text_tokens = 0;
  double loss() const { return nll / static_cast<double>(std::max<int64_t>(tokens, 1)); }
  double text_loss() const { return text_nll / static_cast<double>(std::max<int64_t>(text_tokens, 1)); }
  double unigram_loss() const { return unigram_nll / static_cast<double>(std::max<int64_t>(text_tokens, 1)); }
};

struct ValidationSet {
  int64_t examples = 0;
  int64_t batch_rows = 32;                                      // sequences of one batch
  int64_t pass_rows = 32;                                       // those of a batch that go through the model at once
  std::function<HostBatch(int64_t first, int64_t rows)> batch;  // a pure function of the rows
  std::vector<bool> is_text;                                    // by id
  std::vector<double> unigram_nll;                              // by id: -ln of its share of the training text's tokens
};

// What each sequence's encoder reads: its own inputs, or those of the row before it in its batch (of the last row for
// the first), by which a model that does not use its inputs is seen: its loss stays as it is.
enum class ValidationInputs { kOwn, kOfAnotherRow };

// One pass over the set; the model must be in evaluation mode. Returns nothing if a stop was requested meanwhile.
std::optional<ValidationSums> Validate(ModelState& state, const at::Device& device, const ValidationSet& set,
                                       ValidationInputs inputs = ValidationInputs::kOwn);

}  // namespace allometry::trainer
