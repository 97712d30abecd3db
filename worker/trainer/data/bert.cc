#include "worker/trainer/data/bert.h"

#include <algorithm>

namespace allometry::trainer {
namespace {

// Calls choose(i) for `chosen` of the numbers below `tokens`, every choice equally likely, in order: selection sampling
// (Knuth, volume 2, algorithm 3.4.2 S). choose() may draw from *random as well.
template <typename Choose>
void ChooseTokens(int64_t tokens, int64_t chosen, KeyedRandom* random, Choose choose) {
  for (int64_t i = 0; chosen > 0; ++i) {
    if (random->Below(static_cast<uint32_t>(tokens - i)) >= static_cast<uint64_t>(chosen)) continue;
    --chosen;
    choose(i);
  }
}

int64_t CountChosen(int64_t tokens, double noise_density) { return arch::CountSpans(tokens, noise_density, 1).noise; }

}  // namespace

int32_t Bert::Replacement(int32_t id, KeyedRandom* random) const {
  const uint32_t tenth = random->Below(10);
  if (tenth < 8) return Sentinel(0);
  if (tenth == 8)
    return kFirstPiece + static_cast<int32_t>(random->Below(static_cast<uint32_t>(pieces() - kFirstPiece)));
  return id;
}

Objective::Written Bert::Write(std::span<const int32_t> raw, KeyedRandom random, int32_t* inputs,
                               int32_t* targets) const {
  const auto tokens = static_cast<int64_t>(raw.size());
  *std::ranges::copy(raw, targets).out = kEos;
  *std::ranges::copy(raw, inputs).out = kEos;
  ChooseTokens(tokens, CountChosen(tokens, noise_density_), &random,
               [&](int64_t i) { inputs[i] = Replacement(raw[static_cast<size_t>(i)], &random); });
  return {tokens + 1, tokens + 1};
}

void Bert::MarkText(std::span<const int32_t> targets, KeyedRandom random, std::span<uint8_t> marks) const {
  std::ranges::fill(marks, uint8_t{0});
  const int64_t tokens = std::ranges::find(targets, kPad) - targets.begin() - 1;  // without the last end mark
  ChooseTokens(tokens, CountChosen(tokens, noise_density_), &random, [&](int64_t i) {
    const int32_t id = targets[static_cast<size_t>(i)];
    Replacement(id, &random);  // the same draws as Write
    marks[static_cast<size_t>(i)] = IsText(id);
  });
}

}  // namespace allometry::trainer
