#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>

// T5's buckets of relative positions (Raffel et al. 2020, arXiv 1910.10683): 32 of them, maximum distance 128. One
// function for the tables of every path, host code only: a device's logarithm may round the other way.
namespace allometry::trainer {

constexpr int64_t kRelativeBuckets = 32;
constexpr int64_t kMaxRelativeDistance = 128;  // from here on a direction's last bucket

// Half of a direction's buckets hold exact distances, the other half grow logarithmically up to the maximum.
inline int64_t DistanceBucket(int64_t distance, int64_t buckets) {
  const int64_t exact = buckets / 2;
  if (distance < exact) return distance;
  const float share =
      std::log(static_cast<float>(distance) / static_cast<float>(exact)) /
      static_cast<float>(std::log(static_cast<double>(kMaxRelativeDistance) / static_cast<double>(exact)));
  return std::min(buckets - 1, exact + static_cast<int64_t>(share * static_cast<float>(buckets - exact)));
}

inline int64_t RelativeBucket(int64_t relative, bool bidirectional) {  // relative = key position - query position
  if (!bidirectional) return DistanceBucket(std::max<int64_t>(-relative, 0), kRelativeBuckets);
  const int64_t half = kRelativeBuckets / 2;
  return (relative > 0 ? half : 0) + DistanceBucket(std::abs(relative), half);
}

}  // namespace allometry::trainer
