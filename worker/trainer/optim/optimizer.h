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
  // Of the steps from now on.
  virtual void SetRate(double rate) = 0;
  // One step. `gradients` are in the order of the trained tensors, float32, contiguous, on the same device. An
  // undefined gradient leaves its tensor untouched.
  virtual void Step(const std::vector<at::Tensor>& gradients) = 0;
  void Step(const std::vector<at::Tensor>& gradients, double rate) {
    SetRate(rate);
    Step(gradients);
  }

  // Whether the kernels make the steps: nothing then leaves the device, step count and rate are read there, and the
  // rest of this class is to be had.
  virtual bool UsesKernels() const { return false; }
  // Steps scale all gradients together so that their norm is at most `limit`; 0: they only measure it.
  virtual void MeasureNorm(double limit);
  // The norm is that of all ranks' gradients: `counts`, by tensor, says whose squares this rank adds, and `sum` adds a
  // tensor up over the ranks, in place. Before MeasureNorm.
  virtual void SumNormOverRanks(const std::vector<bool>& counts, std::function<void(const at::Tensor&)> sum);
  // Of the last step's gradients before scaling: float32 scalar on the device, which the next step overwrites.
  virtual at::Tensor norm() const;
  // bfloat16 copies of the tensors, in their order, that steps write too; undefined ones have none.
  virtual void SetCopies(const std::vector<at::Tensor>& copies);
  // Around steps that are recorded in a CUDA graph: what they would copy to the device is copied by EndCapture, since
  // recording copies nothing. It returns memory that must live as long as the graph.
  virtual void BeginCapture();
  virtual at::Tensor EndCapture();

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
