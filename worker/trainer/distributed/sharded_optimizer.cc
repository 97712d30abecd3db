#include "worker/trainer/distributed/sharded_optimizer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

namespace allometry::trainer {
namespace {

constexpr int64_t kSlabBytes = 64 << 20;

}  // namespace

common::Result<std::unique_ptr<Optimizer>> ShardedOptimizer::Make(const OptimizerOptions& options,
                                                                  const std::vector<TrainedTensor>& tensors,
                                                                  const std::vector<int>& owners, RankGroup& group) {
  std::vector<TrainedTensor> own;
  for (size_t i = 0; i < tensors.size(); ++i)
    if (owners[i] < 0 || owners[i] == group.rank()) own.push_back(tensors[i]);
  ALLO_ASSIGN_OR_RETURN(std::unique_ptr<Optimizer> optimizer, MakeOptimizer(options, std::move(own)));
  return {std::unique_ptr<Optimizer>(new ShardedOptimizer(std::move(optimizer), tensors, owners, group))};
}

ShardedOptimizer::ShardedOptimizer(std::unique_ptr<Optimizer> own, std::vector<TrainedTensor> tensors,
                                   std::vector<int> owners, RankGroup& group)
    : own_(std::move(own)), tensors_(std::move(tensors)), owners_(std::move(owners)), group_(group) {
  MakeSlabs();
  if (UsesKernels()) SumNorm();
}

bool ShardedOptimizer::EveryRankUpdates() const {
  for (int rank = 0; rank < group_.size(); ++rank)
    if (std::ranges::none_of(owners_, [&](int owner) { return owner < 0 || owner == rank; })) return false;
  return true;
}

// What every rank has is counted by the first.
void ShardedOptimizer::SumNorm() {
  if (std::ranges::all_of(owners_, [](int owner) { return owner == kEveryRank; })) return;
  std::vector<bool> counts;
  for (const int owner : Own(owners_)) counts.push_back(owner != kEveryRank || group_.is_first());
  own_->SumNormOverRanks(counts, [this](const at::Tensor& squares) { group_.tensors().AllReduce(squares); });
}

void ShardedOptimizer::SetCopies(const std::vector<at::Tensor>& copies) {
  copies_ = copies;
  own_->SetCopies(Own(copies));
}

void ShardedOptimizer::MakeSlabs() {
  int64_t bytes = 0;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (owners_[i] < 0) continue;
    if (slabs_.empty() || bytes >= kSlabBytes) {
      slabs_.emplace_back();
      bytes = 0;
    }
    slabs_.back().tensors.push_back(i);
    bytes += static_cast<int64_t>(tensors_[i].value.nbytes());
  }
  for (Slab& slab : slabs_) {
    std::ranges::stable_sort(slab.tensors, {}, [this](size_t i) { return owners_[i]; });
    slab.bounds.assign(static_cast<size_t>(group_.size()) + 1, 0);
    for (const size_t i : slab.tensors) slab.bounds[static_cast<size_t>(owners_[i]) + 1] += tensors_[i].value.numel();
    for (size_t r = 1; r < slab.bounds.size(); ++r) slab.bounds[r] += slab.bounds[r - 1];
  }
}

void ShardedOptimizer::Step(const std::vector<at::Tensor>& gradients) {
  own_->Step(Own(gradients));
  ShareValues();
}

void ShardedOptimizer::ShareValues() {
  at::NoGradGuard no_grad;
  for (const Slab& slab : slabs_) {
    std::vector<at::Tensor> pieces;
    for (const size_t i : slab.tensors) pieces.push_back(tensors_[i].value.flatten());
    const at::Tensor flat = at::cat(pieces);
    group_.tensors().AllGather(flat, slab.bounds);
    int64_t at = 0;
    for (const size_t i : slab.tensors) {
      const at::Tensor& value = tensors_[i].value;
      if (owners_[i] != group_.rank()) Receive(i, flat.narrow(0, at, value.numel()));
      at += value.numel();
    }
  }
}

void ShardedOptimizer::Receive(size_t i, const at::Tensor& flat) {
  const at::Tensor value = flat.view(tensors_[i].value.sizes());
  tensors_[i].value.copy_(value);
  if (!copies_.empty() && copies_[i].defined()) copies_[i].copy_(value);
}

int ShardedOptimizer::OwnerOf(const std::string& state_name) const {
  for (size_t i = 0; i < tensors_.size(); ++i)
    if (state_name.rfind(tensors_[i].name + '.', 0) == 0) return owners_[i];
  return kEveryRank;
}

// Parts travel under their rank's number, and are put together at rank 0; what every rank has is rank 0's. What has no
// dimension (a number of steps) is the same in every part.
std::map<std::string, at::Tensor> ShardedOptimizer::State() const {
  std::map<std::string, at::Tensor> named, whole;
  std::map<std::string, std::map<int, at::Tensor>> parts;
  for (auto& [name, tensor] : own_->State()) {
    const int owner = OwnerOf(name);
    if (owner == kEveryRank && !group_.is_first()) continue;
    const bool is_part = owner == kDividedPart && tensor.dim() > 0;
    named[(is_part ? std::to_string(group_.rank()) : "") + '/' + name] = tensor;
  }
  for (auto& [name, tensor] : group_.AtFirst(named)) {
    const size_t slash = name.find('/');
    if (slash == 0)
      whole[name.substr(1)] = tensor;
    else
      parts[name.substr(slash + 1)][std::stoi(name)] = tensor;
  }
  for (const auto& [name, by_rank] : parts) {
    std::vector<at::Tensor> in_order;
    for (const auto& [rank, tensor] : by_rank) in_order.push_back(tensor);
    whole[name] = at::cat(in_order);
  }
  return whole;
}

common::Status ShardedOptimizer::LoadState(const std::map<std::string, at::Tensor>& state) {
  std::map<std::string, at::Tensor> own = state;
  for (auto& [name, tensor] : own) {
    if (OwnerOf(name) != kDividedPart || tensor.dim() == 0) continue;
    const int64_t rows = tensor.size(0) / group_.size();
    tensor = tensor.narrow(0, rows * group_.rank(), rows);
  }
  return own_->LoadState(own);
}

}  // namespace allometry::trainer
