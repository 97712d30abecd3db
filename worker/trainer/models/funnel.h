#pragma once

#include <memory>

#include "worker/trainer/models/model.h"

namespace allometry::trainer {

// Funnel Transformer (Dai et al. 2020, arXiv 2006.03236); options: pool. The weights are initialised from `seed`.
std::shared_ptr<Model> MakeFunnel(const ModelSpec& spec, uint64_t seed);

}  // namespace allometry::trainer
