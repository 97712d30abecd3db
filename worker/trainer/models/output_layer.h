#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include "worker/trainer/layers/cross_entropy.h"
#include "worker/trainer/models/token_tables.h"

namespace allometry::trainer {

// What stands between the decoder's output and the likelihood where it is more than one product with the output table.
// Functions take the decoder's output [n, d] and the model's tables; "sum type" is float32, or float64 for float64.
class OutputLayer : public torch::nn::Module {
 public:
  virtual void Initialise(at::Generator generator) = 0;
  // Logits or log-probabilities [n, v], sum type.
  virtual at::Tensor Logits(const at::Tensor& decoded_nd, const TokenTables& tables) const = 0;
  // Sums over targets [n], those that are 0 left out, with a z-loss of coefficient z (0 = none); sum type.
  virtual ZLoss LossSums(const at::Tensor& decoded_nd, const TokenTables& tables, const at::Tensor& targets_n,
                         double z) const = 0;
  // The likelihoods one by one [n], 0 where the target is 0; sum type, no gradient.
  virtual at::Tensor NllRows(const at::Tensor& decoded_nd, const TokenTables& tables,
                             const at::Tensor& targets_n) const = 0;
};

}  // namespace allometry::trainer
