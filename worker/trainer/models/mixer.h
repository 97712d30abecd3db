#pragma once

#include <memory>

#include "worker/trainer/models/model.h"

namespace allometry::trainer {

// MLP-Mixer encoder (Tolstikhin et al. 2021, arXiv 2105.01601); options: decoder, input_length, target_length. Longer
// inputs than input_length are refused: who calls truncates, and counts it. The weights are initialised from `seed`.
std::shared_ptr<Model> MakeMixer(const ModelSpec& spec, uint64_t seed);

}  // namespace allometry::trainer
