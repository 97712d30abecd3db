#pragma once

#include "worker/trainer/data/objective.h"

namespace allometry::trainer {

// Masking as BERT does it (Devlin et al. 2019, section 3.1) with the whole original text as the target, which is how
// Raffel et al. 2020 (table 3, "BERT-style") bring it to an encoder-decoder. A share of the tokens, exact and uniformly
// drawn, is chosen; of these 80 % read sentinel 0, 10 % a random piece, and 10 % stay as they are.
class Bert : public Objective {
 public:
  // `settings` has passed arch::CheckObjective.
  Bert(const arch::ObjectiveSettings& settings, int64_t pieces)
      : Objective(arch::LengthsOf(settings), pieces), noise_density_(settings.noise_density) {}

  // The chosen tokens alone, those that stayed included.
  void MarkText(std::span<const int32_t> targets, KeyedRandom random, std::span<uint8_t> marks) const override;

 private:
  Written Write(std::span<const int32_t> raw, KeyedRandom random, int32_t* inputs, int32_t* targets) const override;
  int32_t Replacement(int32_t id, KeyedRandom* random) const;
  double noise_density_;
};

}  // namespace allometry::trainer
