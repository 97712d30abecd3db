#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "worker/trainer/data/random.h"

namespace allometry::trainer {

// A WordNet data file of invented words: 60 words of `senses` senses each, a synonym set a sense, in lexicographer's
// files of their own, each with two example sentences that use the word.
inline std::string MadeUpSynsets(char pos, uint64_t seed, int senses) {
  std::string text = "  1 A licence, as WordNet's files begin with one.\n";
  static const char* kParts[] = {"bal", "kor", "rim", "tel", "mun", "sha", "vor", "pli"};
  const auto word = [&](uint64_t key) {
    KeyedRandom random(seed, 1, key);
    std::string w;
    for (int i = 0; i < 4; ++i) w += kParts[random.Below(8)];
    return w;
  };
  for (int s = 0; s < 60 * senses; ++s) {
    const std::string lemma = word(static_cast<uint64_t>(s / senses)), other = word(1'000 + static_cast<uint64_t>(s));
    char head[64];
    std::snprintf(head, sizeof head, "%08d %02d %c 02 ", s + 1, s % senses, pos);
    text += head + lemma + " 0 " + other + " 0 000 | the " + word(2'000 + static_cast<uint64_t>(s)) + " of " + pos +
            std::to_string(s) + "; \"we " + lemma + " here " + std::to_string(s) + "\"; \"they " + lemma + " there " +
            std::to_string(s) + "\"  \n";
  }
  return text;
}

}  // namespace allometry::trainer
