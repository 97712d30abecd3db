#pragma once

#include <memory>
#include <set>
#include <string>

#include "common/result.h"
#include "worker/trainer/distributed/gradient_reducer.h"
#include "worker/trainer/distributed/rank_group.h"
#include "worker/trainer/engine/model_state.h"
#include "worker/trainer/optim/optimizer.h"

namespace allometry::trainer {

// Leaves of a Switch model's experts this rank's own, and returns the names of the parameters that are parts now, for
// ModelState::SetDivided. The number of ranks divides that of the experts, and `batch_sequences`, of which each rank
// has as many. `group` must outlive the model.
std::set<std::string> DivideExpertsAmong(RankGroup& group, Model& model, int64_t batch_sequences);

// Whether there are kernels for tensors like this one on every rank. Steps by kernels exchange other sums than those
// without: all ranks make theirs in one way.
bool AllRanksHaveKernels(RankGroup& group, const at::Tensor& like);

// What a rank updates a model with that all ranks train.
struct RankTraining {
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<GradientReducer> reducer;  // of `state`'s gradients
};
// `sharded`: each rank has the gradients and the optimiser's state of its own tensors alone. `state` and `group` must
// outlive the result. kInvalidArgument for an unknown optimiser.
common::Result<RankTraining> TrainOnRanks(const OptimizerOptions& options, bool sharded, ModelState& state,
                                          RankGroup& group);

}  // namespace allometry::trainer
