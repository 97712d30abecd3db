#pragma once

#include <cstdint>
#include <string>

namespace allometry::trainer {

// A learning rate as a function of the step, counted from 1. Pure.
struct Schedule {
  std::string name = "inverse_sqrt";  // or "constant"
  double learning_rate = 0.01;        // the highest rate of the schedule
  int64_t warmup_steps = 10'000;
  std::string warmup = "hold";  // "hold": the highest rate during warm-up, as in T5; "linear": rising to it from 0

  // inverse_sqrt: learning_rate * sqrt(warmup / max(step, warmup)); constant: learning_rate. With linear warm-up the
  // first warmup_steps have the share step / warmup_steps of that.
  double RateAt(int64_t step) const;
};

}  // namespace allometry::trainer
