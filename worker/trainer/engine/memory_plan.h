#pragma once

#include <cstdint>
#include <optional>

#include "worker/trainer/engine/run_config.h"

namespace allometry::trainer {

// How a rank's rows go through the model so that memory holds them.
struct MemoryPlan {
  int64_t micro_batch = 1;
  bool recompute = false;  // activation checkpointing (layers/recompute.h)
};

struct MemoryLimits {
  int64_t rows = 1;                              // of this rank in a batch
  int64_t most_rows = 1;                         // more at once would not be faster
  int64_t bytes = 0;                             // that the device has for this run
  int64_t ranks = 1;                             // among which optimiser states and gradients are divided; 1 = not
  bool on_gpu = false;                           // no process counts, and the allocator keeps more than is in use
  std::optional<bool> recompute = std::nullopt;  // asked for, or forbidden; else where memory needs it
};

// The largest of most_rows, half of it, a quarter, … that the architecture's memory estimate (arch/) lets nine tenths
// of the limit hold; on a GPU half of them, since the estimate leaves the allocator's reserves out. Where fewer than 4
// rows (or all there are) fit, activation checkpointing is on, of which the estimate assumes that it leaves the
// activations of one block; where that does not help, a GPU is filled but for a tenth and 8 GB. At least 1: whether
// that fits only a try can tell.
MemoryPlan PlanMemory(const TrainingConfig& training, const std::string& precision, const MemoryLimits& limits);

// Exactly micro_batch rows at once (or all there are), with activation checkpointing where they would not fit without.
MemoryPlan PlanGiven(const TrainingConfig& training, const std::string& precision, const MemoryLimits& limits,
                     int64_t micro_batch);

// Whether the least that a run can do with fits: one row at a time, or all of them in one pass, whose gradients need
// not be added up; with activation checkpointing.
bool FitsAtAll(const TrainingConfig& training, const std::string& precision, const MemoryLimits& limits);

// Whether the state of a whole model (weights, gradients, optimiser) and one row's activations need more than fits.
bool NeedsSharding(const TrainingConfig& training, const std::string& precision, const MemoryLimits& limits);

}  // namespace allometry::trainer
