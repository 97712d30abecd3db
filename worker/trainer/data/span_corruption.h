#pragma once

#include "worker/trainer/data/objective.h"

namespace allometry::trainer {

// Span corruption as T5 does it (Raffel et al. 2020, section 3.1.4): a share of the tokens, in spans of a mean length,
// is replaced by one sentinel a span in the inputs; the targets are the sentinels, each followed by its span. A
// sequence starts unmasked; there is no closing sentinel. Spans are a uniformly random way to cut the masked and the
// unmasked tokens into as many parts. A piece of lengths().raw tokens fills both sides; a shorter one has its own
// counts and is padded.
class SpanCorruption : public Objective {
 public:
  // `settings` has passed arch::CheckObjective.
  SpanCorruption(const arch::ObjectiveSettings& settings, int64_t pieces);

  int64_t spans() const { return whole_.spans; }  // of lengths().raw tokens

 private:
  Written Write(std::span<const int32_t> raw, KeyedRandom random, int32_t* inputs, int32_t* targets) const override;
  arch::SpanCounts CountSpans(int64_t tokens) const;
  double noise_density_, mean_span_length_;
  arch::SpanCounts whole_;
};

}  // namespace allometry::trainer
