#pragma once

#include <vector>

#include "worker/trainer/optim/device_step.h"
#include "worker/trainer/optim/optimizer.h"

namespace allometry::trainer {

// Adafactor (Shazeer and Stern 2018, arXiv 1804.04235, algorithms 4 and 5) without momentum, with parameter scaling:
//   b = 1 - t^-decay_exponent;  S = G^2 + epsilon_gradient
//   factored: R <- b R + (1-b) row means of S, C <- b C + (1-b) column means of S, V = R C / mean(R)
//   otherwise: V <- b V + (1-b) S
//   U = G / sqrt(V);  U <- U / max(1, rms(U) / clip_threshold)
//   X <- X - rate max(epsilon_scale, rms(X)) U
// A tensor of more than two dimensions is a stack of matrices in its last two: R, C and mean(R) are per matrix, the
// root mean squares are over the whole tensor.
class Adafactor : public KernelOptimizer {
 public:
  Adafactor(const OptimizerOptions& options, std::vector<TrainedTensor> tensors);
  using Optimizer::Step;
  void Step(const std::vector<at::Tensor>& gradients) override;
  std::map<std::string, at::Tensor> State() const override;
  common::Status LoadState(const std::map<std::string, at::Tensor>& state) override;
  // Tensor operations in place of the loops for CPUs. The results agree within rounding.
  void UseTensorOperations(bool use) { tensor_operations_ = use; }

 private:
  struct Slot {
    TrainedTensor tensor;
    bool factored = false;
    int64_t matrices = 1, rows = 1, columns = 1;
    at::Tensor row_means, column_means;  // [matrices, rows], [matrices, columns]; factored only
    at::Tensor second_moment;            // like the value; otherwise
  };
  static bool IsDivided(const Slot& slot) { return slot.tensor.parts > 1; }

  std::vector<DeviceStep::Slot> KernelSlots() const;
  void StepWithKernels(const std::vector<at::Tensor>& gradients);
  void AddUpParts(const at::Tensor& totals);
  void StepWithLoops(Slot& slot, const at::Tensor& gradient, double decay);
  void StepWithTensors(Slot& slot, const at::Tensor& gradient, double decay);

  OptimizerOptions options_;
  std::vector<Slot> slots_;
  // Steps made, int64 scalar: with kernels on the device, else on the host.
  at::Tensor steps_;
  bool tensor_operations_ = false;
};

}  // namespace allometry::trainer
