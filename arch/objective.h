#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "common/result.h"

// What pretraining makes of text, without the text: its numbers and the lengths that follow, which planning and
// training must agree on. All functions are pure and thread-safe.
namespace allometry::arch {

// An objective and its numbers. docs/data.md says what each one does.
struct ObjectiveSettings {
  std::string name = "span_corruption";  // one of ObjectiveNames()
  int64_t input_length = 512;            // positions of the inputs, end mark included
  int64_t target_length = 0;             // prefix_lm only: positions of the targets; 0 = as many as input_length
  double noise_density = 0.15;           // span_corruption, bert: share of the tokens that is hidden
  double mean_span_length = 3.0;         // span_corruption only
};
std::span<const std::string_view> ObjectiveNames();

// Ids behind the tokenizer's pieces that stand for what was hidden; there are no more.
inline constexpr int64_t kSentinels = 100;

// Tokens of one pretraining sequence as the text has them and positions as the model sees them, padding included.
struct ObjectiveLengths {
  int64_t raw = 0;
  int64_t inputs = 0;
  int64_t targets = 0;
};

// How span corruption divides `raw` (>= 2) tokens: `noise` of them hidden, in `spans` spans; both at least 1, and no
// more spans than there are tokens left to part them. Counts are rounded half to even, as T5 does.
struct SpanCounts {
  int64_t noise = 0;
  int64_t spans = 0;
};
SpanCounts CountSpans(int64_t raw, double noise_density, double mean_span_length);

// The lengths of an objective that CheckObjective accepts.
//   span_corruption: T5's arithmetic (random_spans_helper in the public T5 code): the longest raw length whose
//     corrupted inputs still fit input_length, and the targets that follow. 512 at 0.15 and 3.0: 568 raw, 114 targets.
//   prefix_lm: input_length - 1 raw tokens, as T5; inputs and targets as long as asked for, mostly padding.
//   bert: input_length - 1 raw tokens; inputs and targets of input_length.
ObjectiveLengths LengthsOf(const ObjectiveSettings& objective);

// kInvalidArgument: an unknown name, a number out of its range, more than 100 spans, or too few tokens between them.
common::Status CheckObjective(const ObjectiveSettings& objective);

}  // namespace allometry::arch
