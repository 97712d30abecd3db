#pragma once

#include <string>

namespace allometry::common {

// A random version-4 UUID in its 36-character form, from the system's entropy.
std::string RandomUuid();

// The nearest of `candidates` to `word` by edit distance, for "did you mean"; empty when nothing is near.
template <typename Range>
std::string NearestName(const std::string& word, const Range& candidates);

// Number of single-character insertions, deletions and substitutions between two words.
int EditDistance(const std::string& a, const std::string& b);

template <typename Range>
std::string NearestName(const std::string& word, const Range& candidates) {
  std::string best;
  int best_distance = static_cast<int>(word.size()) / 2 + 1;
  for (const auto& candidate : candidates) {
    int distance = EditDistance(word, std::string(candidate));
    if (distance < best_distance) {
      best_distance = distance;
      best = std::string(candidate);
    }
  }
  return best;
}

}  // namespace allometry::common
