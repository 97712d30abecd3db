#pragma once

#include <memory>
#include <vector>

#include "worker/trainer/distributed/rank_group.h"
#include "worker/trainer/optim/optimizer.h"

namespace allometry::trainer {

// Who updates a tensor: a rank (ZeRO), or one of these.
constexpr int kEveryRank = -1;    // all ranks, each for itself, with equal gradients
constexpr int kDividedPart = -2;  // every rank its own part, along the first dimension (TrainedTensor::parts)

// An optimiser whose state is divided among the ranks: by whole tensors (ZeRO stage 1: Rajbhandari et al. 2020, arXiv
// 1910.02054), whose values are exchanged after each step, and by parts of tensors that are divided themselves.
// Gradients are needed of what a rank updates only. All ranks must call Step, State and LoadState together.
class ShardedOptimizer : public Optimizer {
 public:
  // `owners`: by tensor. `group` must outlive this.
  static common::Result<std::unique_ptr<Optimizer>> Make(const OptimizerOptions& options,
                                                         const std::vector<TrainedTensor>& tensors,
                                                         const std::vector<int>& owners, RankGroup& group);

  using Optimizer::Step;
  void SetRate(double rate) override { own_->SetRate(rate); }
  void Step(const std::vector<at::Tensor>& gradients) override;
  // All ranks or none: a rank without any tensor has no step to make.
  bool UsesKernels() const override { return own_->UsesKernels() && EveryRankUpdates(); }
  void MeasureNorm(double limit) override { own_->MeasureNorm(limit); }
  at::Tensor norm() const override { return own_->norm(); }
  void SetCopies(const std::vector<at::Tensor>& copies) override;
  void BeginCapture() override { own_->BeginCapture(); }
  at::Tensor EndCapture() override { return own_->EndCapture(); }
  // Complete and whole at rank 0, empty elsewhere.
  std::map<std::string, at::Tensor> State() const override;
  // Each rank takes its own part of the complete, whole state.
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
  // Another rank's value, and its copy if it has one.
  void Receive(size_t i, const at::Tensor& flat);
  void SumNorm();
  bool EveryRankUpdates() const;
  bool Updates(size_t i) const { return owners_[i] < 0 || owners_[i] == group_.rank(); }
  // Of all tensors' values those that this rank updates.
  template <typename T>
  std::vector<T> Own(const std::vector<T>& all) const {
    std::vector<T> own;
    for (size_t i = 0; i < all.size(); ++i)
      if (Updates(i)) own.push_back(all[i]);
    return own;
  }
  // Of the tensor that a part of the state belongs to, by its name; kEveryRank for what belongs to none.
  int OwnerOf(const std::string& state_name) const;

  std::unique_ptr<Optimizer> own_;
  std::vector<TrainedTensor> tensors_;
  std::vector<int> owners_;
  std::vector<at::Tensor> copies_;  // of all tensors, once told
  std::vector<Slab> slabs_;
  RankGroup& group_;
};

}  // namespace allometry::trainer
