#include "worker/trainer/engine/memory_plan.h"

#include <algorithm>
#include <array>

namespace allometry::trainer {
namespace {

constexpr int64_t kFewRows = 4;
constexpr int64_t kReservedBytes = 8'000'000'000;

int64_t Blocks(const arch::Shape& shape) { return std::max<int64_t>(1, shape.encoder_layers + shape.decoder_layers); }

int64_t Estimate(const TrainingConfig& training, const std::string& precision, const MemoryLimits& limits,
                 const MemoryPlan& plan) {
  const ModelConfig& model = training.model;
  const arch::TrainingSetup setup{training.lengths, plan.micro_batch, precision == "bf16" ? "bf16" : "fp32",
                                  training.optimization.optimizer.name};
  arch::MemoryEstimate e =
      (*arch::FindArchitecture(model.architecture))->EstimateMemory(model.shape, model.options, setup);
  if (limits.on_gpu) e = e.OnGpu();
  if (plan.recompute) e.activations_bytes /= Blocks(model.shape);
  // Gradients are let go of to the ranks that need them in a step's last pass alone: until then passes add up whole
  // ones, of bf16 models in float32.
  if (plan.micro_batch >= limits.rows)
    e.gradients_bytes /= limits.ranks;
  else if (precision == "bf16")
    e.gradients_bytes *= 3;
  e.optimizer_bytes /= limits.ranks;
  return e.total();
}

int64_t Usable(const MemoryLimits& limits) { return limits.on_gpu ? limits.bytes / 2 : limits.bytes / 10 * 9; }

// Where that is too little. Small models were measured to take up to 5 GB more of a GPU than estimated
// (bench/results/memory_gpu.json); the scheduler goes by the same numbers (coordinator/scheduler/gangs.h).
int64_t MostUsable(const MemoryLimits& limits) {
  return std::max(Usable(limits), limits.bytes / 10 * 9 - (limits.on_gpu ? kReservedBytes : 0));
}

}  // namespace

MemoryPlan PlanMemory(const TrainingConfig& training, const std::string& precision, const MemoryLimits& limits) {
  const int64_t most = std::max<int64_t>(1, std::min(limits.rows, limits.most_rows));
  MemoryPlan plan;
  for (const int64_t usable : {Usable(limits), MostUsable(limits)})
    for (const bool recompute : {false, true}) {
      if (recompute != limits.recompute.value_or(recompute)) continue;
      const auto fits = [&] { return Estimate(training, precision, limits, plan) <= usable; };
      plan = {most, recompute};
      while (plan.micro_batch > 1 && !fits()) plan.micro_batch = (plan.micro_batch + 1) / 2;
      if (plan.micro_batch >= std::min(kFewRows, most) && fits()) return plan;
    }
  return plan;
}

MemoryPlan PlanGiven(const TrainingConfig& training, const std::string& precision, const MemoryLimits& limits,
                     int64_t micro_batch) {
  MemoryPlan plan{std::min(micro_batch, limits.rows), false};
  plan.recompute = limits.recompute.value_or(Estimate(training, precision, limits, plan) > Usable(limits));
  return plan;
}

bool FitsAtAll(const TrainingConfig& training, const std::string& precision, const MemoryLimits& limits) {
  return std::ranges::any_of(std::array{int64_t{1}, limits.rows}, [&](int64_t rows) {
    return Estimate(training, precision, limits, {rows, true}) <= MostUsable(limits);
  });
}

bool NeedsSharding(const TrainingConfig& training, const std::string& precision, const MemoryLimits& limits) {
  return Estimate(training, precision, limits, {1, false}) > MostUsable(limits);
}

}  // namespace allometry::trainer
