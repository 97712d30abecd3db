#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "worker/trainer/kernels/tensor_kernels.h"
#include "worker/trainer/optim/optimizer.h"

namespace allometry::trainer {

// An optimiser's tensors as its kernels take them: the lists of addresses and tiles, and the rate, in device memory.
// Where the gradients stay at their addresses nothing is copied after the first step.
class DeviceStep {
 public:
  struct Slot {
    at::Tensor value;  // float32, contiguous; the others like it or undefined
    at::Tensor first_moment, second_moment;
    at::Tensor row_means, column_means;  // defined: factored
    kernels::OptimizerShape shape;
  };

  DeviceStep(const kernels::KernelTable& table, const std::vector<Slot>& slots);

  void SetRate(double rate);
  void MeasureNorm(double limit);
  void SumNormOverRanks(const std::vector<bool>& counts, std::function<void(const at::Tensor&)> sum);
  void SetCopies(const std::vector<at::Tensor>& copies);
  // Takes these gradients: float32, contiguous, in the order of the slots; undefined ones are left out. Measures their
  // norm if that was asked for.
  void Take(const std::vector<at::Tensor>& gradients);
  // See Optimizer.
  void BeginCapture();
  at::Tensor EndCapture();

  const kernels::KernelTable& table() const { return table_; }
  const kernels::OptimizerWork& work() const { return work_; }
  const float* rate() const { return kernels::Floats(rate_); }
  const float* factor() const { return kernels::Floats(factor_); }  // of the gradients; null: 1
  const at::Tensor& norm() const { return norm_; }                  // undefined: not asked for
  at::Tensor totals() const;                                        // the work's, [slots, 2]: its own memory

 private:
  void Norm();
  void FinishNorm();

  const kernels::KernelTable& table_;
  at::Device device_;
  kernels::OptimizerPlan plan_;
  // The list with the gradients' addresses: made anew whenever one of them has moved, since a CUDA graph may still read
  // the one before.
  at::Tensor tensors_;
  bool capturing_ = false;
  std::vector<at::Tensor> copies_;
  at::Tensor tiles_, means_, matrices_, workspace_, rate_;
  at::Tensor partial_, norm_, factor_;
  double limit_ = 0;
  at::Tensor counts_;  // by tile: 1 where its squares count, else 0
  std::function<void(const at::Tensor&)> sum_over_ranks_;
  kernels::OptimizerWork work_;
};

// What optimisers have in common that can leave their steps to a DeviceStep.
class KernelOptimizer : public Optimizer {
 public:
  void SetRate(double rate) override;
  bool UsesKernels() const override { return device_ != nullptr; }
  void MeasureNorm(double limit) override { device().MeasureNorm(limit); }
  void SumNormOverRanks(const std::vector<bool>& counts, std::function<void(const at::Tensor&)> sum) override {
    device().SumNormOverRanks(counts, std::move(sum));
  }
  at::Tensor norm() const override { return device().norm(); }
  void SetCopies(const std::vector<at::Tensor>& copies) override { device().SetCopies(copies); }
  void BeginCapture() override { device().BeginCapture(); }
  at::Tensor EndCapture() override { return device().EndCapture(); }

 protected:
  // If there are kernels for the first of the values.
  void TakeKernels(const std::vector<DeviceStep::Slot>& slots);
  DeviceStep& device() const;

  double rate_ = 0;

 private:
  std::unique_ptr<DeviceStep> device_;
};

}  // namespace allometry::trainer
