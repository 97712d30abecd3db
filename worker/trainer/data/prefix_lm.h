#pragma once

#include "worker/trainer/data/objective.h"

namespace allometry::trainer {

// A prefix language model as T5 pretrains one (Raffel et al. 2020, section 3.3.1; prefix_lm in the public T5 code): the
// text is split at a uniformly drawn point; what is before it is the input, what follows the target.
class PrefixLm : public Objective {
 public:
  // `settings` has passed arch::CheckObjective.
  PrefixLm(const arch::ObjectiveSettings& settings, int64_t pieces) : Objective(arch::LengthsOf(settings), pieces) {}

 private:
  Written Write(std::span<const int32_t> raw, KeyedRandom random, int32_t* inputs, int32_t* targets) const override;
};

}  // namespace allometry::trainer
