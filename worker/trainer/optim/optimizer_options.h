#pragma once

#include <cstdint>
#include <string>

namespace allometry::trainer {

struct OptimizerOptions {
  std::string name = "adafactor";  // or "adamw"
  double weight_decay = 0.0;       // decoupled: value *= 1 - rate * weight_decay
  // Adafactor
  double decay_exponent = 0.8;      // second moments decay by 1 - t^-decay_exponent
  double clip_threshold = 1.0;      // of the root mean square of an update
  double epsilon_gradient = 1e-30;  // added to squared gradients
  double epsilon_scale = 1e-3;      // smallest root mean square of a value that scales its steps
  int64_t factored_from = 128;      // second moments are factored where both last sides are at least this
  // AdamW
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
};

}  // namespace allometry::trainer
