#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/trainer/models/model.h"

namespace allometry::trainer {

// An answer that one row of a batch may give.
struct Candidate {
  int64_t row = 0;
  std::vector<int32_t> tokens;  // with the end mark, at least one
};

// ln p(tokens | input) of each candidate, the sum over its tokens. Inputs [b, s] int64 on the model's device are
// encoded once, and candidates weighed a few at a time. The model must be in evaluation mode.
std::vector<double> LogLikelihoods(Model& model, const at::Tensor& inputs_bs, std::span<const Candidate> candidates);

}  // namespace allometry::trainer
