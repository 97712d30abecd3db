#pragma once

#include <memory>

#include "worker/trainer/models/model.h"

namespace allometry::trainer {

// GLU-Transformer (Shazeer 2020, arXiv 2002.05202); options: activation, tied_embedding. The weights are initialised
// from `seed`.
std::shared_ptr<Model> MakeGlu(const ModelSpec& spec, uint64_t seed);

}  // namespace allometry::trainer
