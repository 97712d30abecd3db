#pragma once

#include <memory>

#include "worker/trainer/models/model.h"

namespace allometry::trainer {

// Dynamic convolution in place of self-attention (Wu et al. 2019, arXiv 1901.10430); options: heads. The weights are
// initialised from `seed`.
std::shared_ptr<Model> MakeDconv(const ModelSpec& spec, uint64_t seed);

}  // namespace allometry::trainer
