#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "worker/trainer/distributed/rank_group.h"
#include "worker/trainer/engine/device_batches.h"
#include "worker/trainer/engine/model_state.h"
#include "worker/trainer/engine/run_config.h"
#include "worker/trainer/engine/step_graphs.h"

namespace allometry::trainer {

// One step: forward and backward pass of all micro-batches, clipping, the optimiser, the model's copies. Weights and
// optimiser state after step n are a function of those before it, the batch, the run's seed and n.
//
// Where kernels make the optimiser's step, nothing of a step is read on the host, and what differs from step to step
// (learning rate, the draws' key, the number of targets) lies on the device: there steps can be CUDA graphs.
class TrainingStep {
 public:
  struct Parts {
    const TrainingConfig& config;
    at::Device device;
    ModelState& state;
    Optimizer& optimizer;
    RankGroup* group = nullptr;  // null: this is the only rank
    bool sharded = false;        // gradients are there for a rank's own tensors only
    int64_t micro_batch = 0;     // rows at once
    bool may_recompute = true;   // activation checkpointing where memory does not hold one row
    StepGraphMaker graphs = nullptr;
  };
  explicit TrainingStep(const Parts& parts);

  // `wants_norm`: of the gradients; with kernels it is measured anyway. `hold` is called before anything changes what a
  // checkpoint holds, and `given` when the work on the batch has been given to the device.
  struct Moments {
    std::function<void()> hold, given;
  };
  StepResult Take(int64_t step, const DeviceBatch& batch, bool wants_norm, const Moments& moments);

  int64_t micro_batch() const { return micro_batch_; }  // halved whenever memory did not suffice
  int64_t graph_launches() const { return graphs_ ? graphs_->launches() : 0; }

 private:
  void SetNumbers(int64_t step, const DeviceBatch& batch);
  void BeginCapture();
  at::Tensor EndCapture();
  bool FailedOnAnyRank(bool failed) const;
  // What a graph holds: nothing here may depend on the step but through device memory.
  StepResult Compute(const DeviceBatch& batch, bool wants_norm, const Moments& moments);
  StepResult Accumulate(const DeviceBatch& batch);
  StepResult TakeOnce(const DeviceBatch& batch, bool wants_norm, const Moments& moments);
  bool NeedLess();
  void BeginPass(int64_t first_row, int64_t rows) const;
  // Clips, steps; returns the norm if it was measured.
  at::Tensor Update(bool wants_norm, const Moments& moments);
  at::Tensor ClipByHost(const std::vector<at::Tensor>& gradients, bool wants_norm) const;
  double GradientNormOfAll(const std::vector<at::Tensor>& gradients) const;

  Parts parts_;
  int64_t micro_batch_;
  bool on_device_;         // the optimiser steps by kernels
  at::Tensor targets_;     // the global batch's number of unpadded targets, of the losses' type
  at::Tensor device_key_;  // on_device_: int64 [1]
  int64_t step_ = 0;       // not on_device_: what is drawn from
  bool updating_ = false;  // weights may have changed: the step cannot be taken again
  std::optional<StepGraphs> graphs_;
};

}  // namespace allometry::trainer
