#pragma once

#include <memory>

#include "worker/trainer/models/model.h"

namespace allometry::trainer {

// The Universal Transformer (Dehghani et al. 2018, arXiv 1807.03819): see docs/architectures.md.
std::shared_ptr<Model> MakeUniversal(const ModelSpec& spec, uint64_t seed);

}  // namespace allometry::trainer
