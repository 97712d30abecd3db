#include "worker/trainer/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace allometry::trainer {
namespace {

// Where `at` lies between `begin` and `end`, from 0 to 1.
double Progress(double at, double begin, double end) {
  if (at <= begin) return 0;
  return at >= end ? 1 : (at - begin) / (end - begin);
}

}  // namespace

double Schedule::RateAt(int64_t step) const {
  const double warm = static_cast<double>(std::max<int64_t>(warmup_steps, 1));
  const double at = static_cast<double>(step), end = static_cast<double>(steps);
  double share = 1;
  if (name == "inverse_sqrt") share = std::sqrt(warm / std::max(at, warm));
  if (name == "cosine") {
    const double x = Progress(at, static_cast<double>(warmup_steps), end);
    share = final_fraction + (1 - final_fraction) * (1 + std::cos(std::numbers::pi * x)) / 2;
  }
  if (name == "wsd") share = 1 - (1 - final_fraction) * Progress(at, end - decay_fraction * end, end);
  if (warmup == "linear" && at < warm) share *= at / warm;
  return learning_rate * share;
}

}  // namespace allometry::trainer
