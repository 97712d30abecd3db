#include "worker/trainer/engine/divergence.h"

#include <algorithm>
#include <cmath>

namespace allometry::trainer {

DivergenceDetector::DivergenceDetector(double loss_spike, int64_t window_steps, int64_t warmup_steps)
    : loss_spike_(loss_spike), window_steps_(window_steps), warmup_steps_(warmup_steps) {}

std::optional<std::string> DivergenceDetector::Observe(int64_t step, double loss) {
  if (!std::isfinite(loss)) return "the loss of step " + std::to_string(step) + " is not finite";
  sum_ += loss;
  if (++count_ < window_steps_) return std::nullopt;
  return CloseWindow(step);
}

std::optional<std::string> DivergenceDetector::CloseWindow(int64_t step) {
  const double mean = sum_ / static_cast<double>(count_);
  sum_ = 0;
  count_ = 0;
  const double best = best_mean_.value_or(mean);
  best_mean_ = std::min(best, mean);
  if (loss_spike_ <= 0 || step <= warmup_steps_ || mean <= best + loss_spike_) return std::nullopt;
  return "loss spike: a mean of " + std::to_string(mean) + " nats over the " + std::to_string(window_steps_) +
         " steps to step " + std::to_string(step) + ", more than " + std::to_string(loss_spike_) +
         " above the best mean of " + std::to_string(best);
}

common::Json DivergenceDetector::ToJson() const {
  common::Json state{{"sum", sum_}, {"count", count_}};
  if (best_mean_) state["best_mean"] = *best_mean_;
  return state;
}

void DivergenceDetector::FromJson(const common::Json& state) {
  sum_ = state.value("sum", 0.0);
  count_ = state.value("count", int64_t{0});
  if (state.contains("best_mean")) best_mean_ = state["best_mean"].get<double>();
}

}  // namespace allometry::trainer
