#include "worker/trainer/data/span_corruption.h"

#include <array>

namespace allometry::trainer {
namespace {

using PartLengths = std::array<int32_t, kSentinels>;

// Cuts `items` into `parts` non-empty parts, every way equally likely: selection sampling of parts - 1 of the items - 1
// gaps (Knuth, volume 2, algorithm 3.4.2 S).
void CutInParts(int64_t items, int64_t parts, KeyedRandom* random, PartLengths* lengths) {
  int64_t cuts = parts - 1, part = 0;
  int32_t length = 1;
  for (int64_t gaps = items - 1; gaps > 0; --gaps) {
    if (cuts > 0 && random->Below(static_cast<uint32_t>(gaps)) < static_cast<uint64_t>(cuts)) {
      (*lengths)[part++] = length;
      length = 0;
      --cuts;
    }
    ++length;
  }
  (*lengths)[part] = length;
}

}  // namespace

SpanCorruption::SpanCorruption(const arch::ObjectiveSettings& settings, int64_t pieces)
    : Objective(arch::LengthsOf(settings), pieces),
      noise_density_(settings.noise_density),
      mean_span_length_(settings.mean_span_length),
      whole_(CountSpans(lengths().raw)) {}

arch::SpanCounts SpanCorruption::CountSpans(int64_t tokens) const {
  return arch::CountSpans(tokens, noise_density_, mean_span_length_);
}

Objective::Written SpanCorruption::Write(std::span<const int32_t> raw, KeyedRandom random, int32_t* inputs,
                                         int32_t* targets) const {
  const auto tokens = static_cast<int64_t>(raw.size());
  const auto [noise, spans] = tokens == lengths().raw ? whole_ : CountSpans(tokens);
  PartLengths masked, kept;
  CutInParts(noise, spans, &random, &masked);
  CutInParts(tokens - noise, spans, &random, &kept);
  const int32_t* in = raw.data();
  int32_t* input = inputs;
  int32_t* target = targets;
  for (int64_t i = 0; i < spans; ++i) {
    for (int32_t j = 0; j < kept[i]; ++j) *input++ = *in++;
    *input++ = *target++ = Sentinel(i);
    for (int32_t j = 0; j < masked[i]; ++j) *target++ = *in++;
  }
  *input++ = *target++ = kEos;
  return {input - inputs, target - targets};
}

}  // namespace allometry::trainer
