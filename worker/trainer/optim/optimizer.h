#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/result.h"
#include "worker/trainer/optim/optimizer_options.h"

namespace allometry::trainer {

// One trained tensor: float32 and contiguous, whatever precision the model computes in.
struct TrainedTensor {
  std::string name;
  at::Tensor value;
  // Where the value is one of `parts` equal parts along the first dimension, each on a rank of its own: adds a tensor
  // up over these ranks, in place. Every rank then makes the same steps.
  int64_t parts = 1;
  std::function<void(const at::Tensor&)> sum_over_parts = nullptr;
};

// Updates tensors in place from their gradients. Not thread-safe. The state is plain tensors, so that a checkpoint can
// hold it: after LoadState a run goes on bit-equal.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // One step at the given rate. `gradients` are in the order of the trained tensors, float32, contiguous, on the same
  // device. An undefined gradient leaves its tensor untouched.
  virtual void Step(const std::vector<at::Tensor>& gradients, double rate) = 0;
  virtual std::map<std::string, at::Tensor> State() const = 0;
  // kDataLoss names the first tensor that is missing or has another shape.
  virtual common::Status LoadState(const std::map<std::string, at::Tensor>& state) = 0;
};

// The tensors are updated where they are: the optimiser shares their memory. kInvalidArgument for an unknown name.
common::Result<std::unique_ptr<Optimizer>> MakeOptimizer(const OptimizerOptions& options,
                                                         std::vector<TrainedTensor> tensors);

// The Euclidean norm of all gradients together, summed in double and in an order that no thread count changes.
double GradientNorm(const std::vector<at::Tensor>& gradients);

// Scales all gradients by one factor, in place.
void ScaleGradients(const std::vector<at::Tensor>& gradients, double factor);

// Copies `value` into `target`; kDataLoss if it is absent from `state` or has another shape.
common::Status LoadTensor(const std::map<std::string, at::Tensor>& state, const std::string& name, at::Tensor& target);

}  // namespace allometry::trainer
