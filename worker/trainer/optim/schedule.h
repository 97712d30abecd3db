#pragma once

#include <cstdint>
#include <string>

namespace allometry::trainer {

// A learning rate as a function of the step, counted from 1. Pure.
struct Schedule {
  std::string name = "inverse_sqrt";  // or "constant", "cosine", "wsd"
  double learning_rate = 0.01;        // the highest rate of the schedule
  int64_t warmup_steps = 10'000;
  std::string warmup = "hold";  // "hold": the highest rate during warm-up, as in T5; "linear": rising to it from 0
  int64_t steps = 0;            // of the run; cosine and wsd end with it
  double final_fraction = 0;    // cosine, wsd: share of the highest rate that is left at the last step
  double decay_fraction = 0.1;  // wsd: share of the steps in which the rate falls

  // With w = warmup_steps, n = steps and f = final_fraction, as shares of learning_rate:
  //   inverse_sqrt  sqrt(w / max(step, w))
  //   constant      1
  //   cosine        f + (1 - f) (1 + cos(pi x)) / 2, where x runs from 0 at step w to 1 at step n
  //   wsd           1 up to step n - decay_fraction n, then straight down to f at step n
  // With linear warm-up the first w steps have the share step / w of that.
  double RateAt(int64_t step) const;
};

}  // namespace allometry::trainer
