#pragma once

#include <memory>

#include "worker/trainer/models/model.h"

namespace allometry::trainer {

// Mixture of Softmaxes at the output (Yang et al. 2018, arXiv 1711.03953); options: softmaxes. Decoding returns
// log-probabilities. The weights are initialised from `seed`.
std::shared_ptr<Model> MakeMos(const ModelSpec& spec, uint64_t seed);

}  // namespace allometry::trainer
