#include "worker/trainer/engine/rank_training.h"

#include "worker/trainer/distributed/sharded_optimizer.h"
#include "worker/trainer/kernels/tensor_kernels.h"
#include "worker/trainer/models/switch.h"

namespace allometry::trainer {

std::set<std::string> DivideExpertsAmong(RankGroup& group, Model& model, int64_t batch_sequences) {
  const auto exchange = [&group](const at::Tensor& slices) { return group.tensors().AllToAll(slices); };
  return DivideExperts(model, {group.rank(), group.size(), batch_sequences / group.size(), exchange});
}

bool AllRanksHaveKernels(RankGroup& group, const at::Tensor& like) {
  return group.All(kernels::KernelsFor(like) != nullptr);
}

common::Result<RankTraining> TrainOnRanks(const OptimizerOptions& options, bool sharded, ModelState& state,
                                          RankGroup& group) {
  std::vector<TrainedTensor> masters = state.masters();
  const std::vector<at::Tensor> shared = state.SharedMasters();
  const std::vector<int> shared_owners = sharded ? BalancedOwners(shared, group.size()) : std::vector<int>();
  std::vector<int> owners;
  size_t next = 0;
  for (size_t i = 0; i < masters.size(); ++i) {
    if (!state.IsDivided(i)) {
      owners.push_back(sharded ? shared_owners[next++] : kEveryRank);
      continue;
    }
    owners.push_back(kDividedPart);
    masters[i].parts = group.size();
    masters[i].sum_over_parts = [&group](const at::Tensor& tensor) { group.tensors().AllReduce(tensor); };
  }
  RankTraining training;
  ALLO_ASSIGN_OR_RETURN(training.optimizer, ShardedOptimizer::Make(options, masters, owners, group));
  training.reducer =
      std::make_unique<GradientReducer>(group.tensors(), shared, GradientReducer::Options{.owners = shared_owners});
  state.ReduceOverRanks(training.reducer.get());
  return training;
}

}  // namespace allometry::trainer
