#pragma once

#include <vector>

#include "worker/trainer/kernels/tensor_kernels.h"

namespace allometry::trainer {

// What a step over all tensors at once takes on a GPU: the tensors' addresses and the dealt-out work, in its memory.
// Where the gradients stay at their addresses nothing is copied after the first step, so that a CUDA graph can hold it.
class DeviceStep {
 public:
  struct Slot {
    at::Tensor value;  // float32, contiguous; the others like it or undefined
    at::Tensor first_moment, second_moment;
    at::Tensor row_means, column_means;  // defined: factored
    kernels::OptimizerShape shape;
  };

  DeviceStep(const kernels::KernelTable& table, const std::vector<Slot>& slots);
  // Takes these gradients and this rate: float32, contiguous, in the order of the slots; undefined ones are left out.
  void Take(const std::vector<at::Tensor>& gradients, double rate);

  const kernels::KernelTable& table() const { return table_; }
  const kernels::OptimizerWork& work() const { return work_; }
  const at::Tensor& rate() const { return rate_; }  // float32 scalar on the device

 private:
  const kernels::KernelTable& table_;
  at::Device device_;
  kernels::OptimizerPlan plan_;
  at::Tensor tensors_, tiles_, means_, matrices_, workspace_, rate_;
  kernels::OptimizerWork work_;
};

}  // namespace allometry::trainer
