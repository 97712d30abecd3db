#include "worker/trainer/data/prefix_lm.h"

#include <algorithm>

namespace allometry::trainer {

Objective::Written PrefixLm::Write(std::span<const int32_t> raw, KeyedRandom random, int32_t* inputs,
                                   int32_t* targets) const {
  // At least one token on each side, and no longer target than fits beside its end mark.
  const auto tokens = static_cast<int64_t>(raw.size());
  const int64_t shortest = std::max<int64_t>(1, tokens - (lengths().targets - 1));
  const int64_t prefix = shortest + random.Below(static_cast<uint32_t>(tokens - shortest));
  *std::copy(raw.begin(), raw.begin() + prefix, inputs) = kEos;
  *std::copy(raw.begin() + prefix, raw.end(), targets) = kEos;
  return {prefix + 1, tokens - prefix + 1};
}

}  // namespace allometry::trainer
