#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"

namespace allometry::trainer {

// Tells when a run has diverged: at once for a loss that is not finite; for a spike when the mean loss of a window of
// steps lies more than `loss_spike` nats above the lowest mean of an earlier window. Windows follow one another without
// overlap; those inside warm-up lower the mark but raise no alarm. Its state goes into checkpoints.
class DivergenceDetector {
 public:
  DivergenceDetector(double loss_spike, int64_t window_steps, int64_t warmup_steps);

  // The loss of the next step, counted from 1. Returns the reason if the run has diverged.
  std::optional<std::string> Observe(int64_t step, double loss);

  common::Json ToJson() const;
  void FromJson(const common::Json& state);

 private:
  std::optional<std::string> CloseWindow(int64_t step);

  double loss_spike_;
  int64_t window_steps_;
  int64_t warmup_steps_;
  double sum_ = 0;  // of the open window
  int64_t count_ = 0;
  std::optional<double> best_mean_;
};

}  // namespace allometry::trainer
