#pragma once

#include <vector>

#include "worker/trainer/optim/optimizer.h"

namespace allometry::trainer {

// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) by LibTorch's fused kernel, on CPUs and GPUs. All tensors must
// be on one device.
class AdamW : public Optimizer {
 public:
  AdamW(const OptimizerOptions& options, std::vector<TrainedTensor> tensors);
  void Step(const std::vector<at::Tensor>& gradients, double rate) override;
  std::map<std::string, at::Tensor> State() const override;
  common::Status LoadState(const std::map<std::string, at::Tensor>& state) override;

 private:
  OptimizerOptions options_;
  std::vector<TrainedTensor> tensors_;
  std::vector<at::Tensor> first_moments_, second_moments_;
  std::vector<at::Tensor> steps_;  // float32 scalars, as the kernel wants them: one for each tensor
};

}  // namespace allometry::trainer
