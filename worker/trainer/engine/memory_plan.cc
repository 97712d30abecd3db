#include "worker/trainer/engine/memory_plan.h"

#include <algorithm>

namespace allometry::trainer {
namespace {

constexpr int64_t kFewRows = 4;

int64_t Blocks(const arch::Shape& shape) { return std::max<int64_t>(1, shape.encoder_layers + shape.decoder_layers); }

int64_t Estimate(const TrainingConfig& training, const std::string& precision, const MemoryLimits& limits,
                 const MemoryPlan& plan) {
  const ModelConfig& model = training.model;
  const arch::TrainingSetup setup{training.lengths, plan.micro_batch, precision == "bf16" ? "bf16" : "fp32",
                                  training.optimization.optimizer.name};
  arch::MemoryEstimate e =
      (*arch::FindArchitecture(model.architecture))->EstimateMemory(model.shape, model.options, setup);
  if (limits.on_gpu) e.process_bytes = 0;
  if (plan.recompute) e.activations_bytes /= Blocks(model.shape);
  e.gradients_bytes /= limits.ranks;
  e.optimizer_bytes /= limits.ranks;
  return e.total();
}

bool Fits(const TrainingConfig& training, const std::string& precision, const MemoryLimits& limits,
          const MemoryPlan& plan) {
  const int64_t usable = limits.on_gpu ? limits.bytes / 2 : limits.bytes / 10 * 9;
  return Estimate(training, precision, limits, plan) <= usable;
}

}  // namespace

MemoryPlan PlanMemory(const TrainingConfig& training, const std::string& precision, const MemoryLimits& limits) {
  const int64_t most = std::max<int64_t>(1, std::min(limits.rows, limits.most_rows));
  MemoryPlan plan;
  for (const bool recompute : {false, true}) {
    if (recompute != limits.recompute.value_or(recompute)) continue;
    plan = {most, recompute};
    while (plan.micro_batch > 1 && !Fits(training, precision, limits, plan))
      plan.micro_batch = (plan.micro_batch + 1) / 2;
    if (plan.micro_batch >= std::min(kFewRows, most) && Fits(training, precision, limits, plan)) return plan;
  }
  return plan;
}

MemoryPlan PlanGiven(const TrainingConfig& training, const std::string& precision, const MemoryLimits& limits,
                     int64_t micro_batch) {
  MemoryPlan plan{std::min(micro_batch, limits.rows), false};
  plan.recompute = limits.recompute.value_or(!Fits(training, precision, limits, plan));
  return plan;
}

bool FitsAtAll(const TrainingConfig& training, const std::string& precision, const MemoryLimits& limits) {
  return Fits(training, precision, limits, {1, true});
}

bool NeedsSharding(const TrainingConfig& training, const std::string& precision, const MemoryLimits& limits) {
  return !Fits(training, precision, limits, {1, false});
}

}  // namespace allometry::trainer
