#include "worker/trainer/data/span_corruption.h"

#include <array>
#include <stdexcept>
#include <string>

namespace allometry::trainer {
namespace {

using PartLengths = std::array<int32_t, kSentinels>;

// Cuts `items` into `parts` non-empty parts, every way equally likely: selection sampling of parts - 1 of the items - 1
// gaps (Knuth, volume 2, algorithm 3.4.2 S).
void Cut(int64_t items, int64_t parts, KeyedRandom* random, PartLengths* lengths) {
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

common::Result<SpanCorruption> SpanCorruption::Create(int64_t input_length, double noise_density,
                                                      double mean_span_length, int64_t pieces) {
  if (!(noise_density > 0 && noise_density < 1))
    return common::InvalidArgument("noise_density is " + std::to_string(noise_density) +
                                   ", and must lie between 0 and 1");
  if (!(mean_span_length >= 1))
    return common::InvalidArgument("mean_span_length is " + std::to_string(mean_span_length) +
                                   ", and must be at least 1");
  if (input_length < 4)
    return common::InvalidArgument("input_length is " + std::to_string(input_length) + ", and must be at least 4");
  SpanCorruption corruption;
  corruption.lengths_ = arch::LengthsForSpanCorruption(input_length, noise_density, mean_span_length);
  corruption.pieces_ = pieces;
  // inputs = raw - noise + spans + 1 and targets = noise + spans + 1.
  const arch::SpanCorruptionLengths& n = corruption.lengths_;
  corruption.spans_ = (n.inputs + n.targets - n.raw - 2) / 2;
  corruption.noise_ = n.targets - corruption.spans_ - 1;
  if (corruption.spans_ > kSentinels)
    return common::InvalidArgument("span corruption of " + std::to_string(n.raw) + " tokens needs " +
                                   std::to_string(corruption.spans_) + " spans and there are " +
                                   std::to_string(kSentinels) +
                                   " sentinels: shorten input_length or lengthen mean_span_length");
  if (n.raw - corruption.noise_ < corruption.spans_)
    return common::InvalidArgument("noise_density " + std::to_string(noise_density) + " with spans of " +
                                   std::to_string(mean_span_length) +
                                   " leaves fewer unmasked tokens than spans: lower the density");
  return corruption;
}

void SpanCorruption::Corrupt(std::span<const int32_t> raw, KeyedRandom random, std::span<int32_t> inputs,
                             std::span<int32_t> targets) const {
  if (static_cast<int64_t>(raw.size()) != lengths_.raw || static_cast<int64_t>(inputs.size()) != lengths_.inputs ||
      static_cast<int64_t>(targets.size()) != lengths_.targets)
    throw std::invalid_argument("SpanCorruption::Corrupt: a span has not the length that lengths() gives");
  PartLengths masked, kept;
  Cut(noise_, spans_, &random, &masked);
  Cut(lengths_.raw - noise_, spans_, &random, &kept);
  const int32_t* in = raw.data();
  int32_t* input = inputs.data();
  int32_t* target = targets.data();
  for (int64_t i = 0; i < spans_; ++i) {
    for (int32_t j = 0; j < kept[i]; ++j) *input++ = *in++;
    *input++ = *target++ = Sentinel(i);
    for (int32_t j = 0; j < masked[i]; ++j) *target++ = *in++;
  }
  *input = *target = kEos;
}

}  // namespace allometry::trainer
