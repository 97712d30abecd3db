#pragma once

#include <cstdint>
#include <span>

#include "arch/architecture.h"
#include "common/result.h"
#include "worker/trainer/data/random.h"

namespace allometry::trainer {

inline constexpr int32_t kPad = 0, kEos = 1, kUnknown = 2;
inline constexpr int64_t kSentinels = 100;

// Span corruption as T5 does it (Raffel et al. 2020, section 3.1.4): a share of the tokens, in spans of a mean length,
// is replaced by one sentinel a span in the inputs; the targets are the sentinels, each followed by its span. Both end
// with the end mark. A sequence starts unmasked; there is no closing sentinel. Immutable and thread-safe.
class SpanCorruption {
 public:
  // `pieces`: size of the tokenizer, sentinels not counted; sentinel i is the id pieces + 99 - i.
  // kInvalidArgument: a density outside (0, 1), a mean span below 1, or lengths that would need more than 100 spans.
  static common::Result<SpanCorruption> Create(int64_t input_length, double noise_density, double mean_span_length,
                                               int64_t pieces);

  const arch::SpanCorruptionLengths& lengths() const { return lengths_; }
  int64_t spans() const { return spans_; }

  // Corrupts lengths().raw tokens into exactly lengths().inputs and lengths().targets ids. Spans are a uniformly random
  // way to cut the masked and the unmasked tokens into spans() parts each, drawn from `random`.
  void Corrupt(std::span<const int32_t> raw, KeyedRandom random, std::span<int32_t> inputs,
               std::span<int32_t> targets) const;

  int32_t Sentinel(int64_t i) const { return static_cast<int32_t>(pieces_ + kSentinels - 1 - i); }
  // Whether a target id is text: neither padding, end mark nor sentinel.
  bool IsText(int32_t id) const { return id != kPad && id != kEos && id < pieces_; }

 private:
  arch::SpanCorruptionLengths lengths_;
  int64_t noise_ = 0, spans_ = 0, pieces_ = 0;
};

}  // namespace allometry::trainer
