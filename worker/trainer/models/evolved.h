#pragma once

#include <memory>

#include "worker/trainer/models/model.h"

namespace allometry::trainer {

// The Evolved Transformer (So et al. 2019, arXiv 1901.11117): see docs/architectures.md.
std::shared_ptr<Model> MakeEvolved(const ModelSpec& spec, uint64_t seed);

}  // namespace allometry::trainer
