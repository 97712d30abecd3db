#pragma once

#include <memory>

#include "worker/trainer/models/model.h"

namespace allometry::trainer {

// ALBERT (Lan et al. 2019, arXiv 1909.11942) as an encoder-decoder; options: factor, untied_softmax. The weights are
// initialised from `seed`.
std::shared_ptr<Model> MakeAlbert(const ModelSpec& spec, uint64_t seed);

}  // namespace allometry::trainer
