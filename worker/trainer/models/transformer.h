#pragma once

#include <memory>

#include "worker/trainer/models/model.h"

namespace allometry::trainer {

// T5 v1.0 (Raffel et al. 2020, arXiv 1910.10683); options: none. The weights are initialised from `seed`.
std::shared_ptr<Model> MakeTransformer(const ModelSpec& spec, uint64_t seed);

}  // namespace allometry::trainer
