#include <algorithm>
#include <cmath>

#include "arch/architecture.h"

namespace allometry::arch {
namespace {

// std::nearbyint rounds halves to even in the default mode, as T5's data pipeline does.
int64_t RoundHalfToEven(double v) { return static_cast<int64_t>(std::nearbyint(v)); }

// Lengths of inputs and targets that `raw` tokens turn into: every noise span leaves one sentinel in the inputs and
// brings one into the targets; both end with the end mark.
SpanCorruptionLengths Corrupted(int64_t raw, double noise_density, double mean_span_length) {
  const int64_t noise = std::clamp<int64_t>(RoundHalfToEven(static_cast<double>(raw) * noise_density), 1, raw - 1);
  const int64_t spans = std::max<int64_t>(1, RoundHalfToEven(static_cast<double>(noise) / mean_span_length));
  return {raw, raw - noise + spans + 1, noise + spans + 1};
}

}  // namespace

SpanCorruptionLengths LengthsForSpanCorruption(int64_t input_length, double noise_density, double mean_span_length) {
  SpanCorruptionLengths best = Corrupted(2, noise_density, mean_span_length);
  for (int64_t raw = 2;; ++raw) {
    SpanCorruptionLengths next = Corrupted(raw, noise_density, mean_span_length);
    if (next.inputs > input_length) return best;
    best = next;
  }
}

}  // namespace allometry::arch
