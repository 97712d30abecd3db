#include "worker/trainer/optim/schedule.h"

#include <algorithm>
#include <cmath>

namespace allometry::trainer {

double Schedule::RateAt(int64_t step) const {
  const double warm = static_cast<double>(std::max<int64_t>(warmup_steps, 1));
  const double at = static_cast<double>(step);
  double rate = learning_rate;
  if (name == "inverse_sqrt") rate *= std::sqrt(warm / std::max(at, warm));
  if (warmup == "linear" && at < warm) rate *= at / warm;
  return rate;
}

}  // namespace allometry::trainer
