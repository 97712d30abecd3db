#pragma once

#include <memory>

#include "worker/trainer/models/model.h"

namespace allometry::trainer {

// Performer (Choromanski et al. 2020, arXiv 2009.14794); options: kernel, redraw_steps. Weights and random features are
// initialised from `seed`; the features of later draws follow from it and the step.
std::shared_ptr<Model> MakePerformer(const ModelSpec& spec, uint64_t seed);

}  // namespace allometry::trainer
