#pragma once

#include <cstdint>
#include <vector>

#include "worker/trainer/models/model.h"

namespace allometry::trainer {

// The most probable continuation of each input, one token after the other, without sampling: ids up to the end mark (id
// 1, left out) or `max_tokens`. Inputs [b, s] int64 on the model's device. The model must be in evaluation mode.
std::vector<std::vector<int64_t>> DecodeGreedily(Model& model, const at::Tensor& inputs_bs, int64_t max_tokens);

}  // namespace allometry::trainer
