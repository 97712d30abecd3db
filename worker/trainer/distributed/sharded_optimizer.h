#pragma once

#include <memory>
#include <vector>

#include "worker/trainer/distributed/rank_group.h"
#include "worker/trainer/optim/optimizer.h"

namespace allometry::trainer {

// An optimiser whose state is divided among the ranks, whole tensors each (ZeRO stage 1: Rajbhandari et al. 2020, arXiv
// 1910.02054). Each rank updates its own tensors, then all exchange their values. Gradients are needed of a rank's own
// tensors only. All ranks must call Step, State and LoadState together.
class ShardedOptimizer : public Optimizer {
 public:
  // `owners`: a rank for each tensor. `group` must outlive this.
  static common::Result<std::unique_ptr<Optimizer>> Make(const OptimizerOptions& options,
                                                         const std::vector<TrainedTensor>& tensors,
                                                         const std::vector<int>& owners, RankGroup& group);

  void Step(const std::vector<at::Tensor>& gradients, double rate) override;
  // Complete at rank 0, empty elsewhere.
  std::map<std::string, at::Tensor> State() const override;
  // Each rank takes its own part of the complete state.
  common::Status LoadState(const std::map<std::string, at::Tensor>& state) override;

 private:
  // Tensors whose values travel together, by owner.
  struct Slab {
    std::vector<size_t> tensors;
    Bounds bounds;
  };
  ShardedOptimizer(std::unique_ptr<Optimizer> own, std::vector<TrainedTensor> tensors, std::vector<int> owners,
                   RankGroup& group);
  void MakeSlabs();
  void ShareValues();

  std::unique_ptr<Optimizer> own_;
  std::vector<TrainedTensor> tensors_;
  std::vector<int> owners_;
  std::vector<Slab> slabs_;
  RankGroup& group_;
};

}  // namespace allometry::trainer
