#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "worker/trainer/data/dataset.h"
#include "worker/trainer/data/objective.h"

namespace allometry::trainer {

using Ids = std::vector<int32_t>;

// Token files written by hand, of a tokenizer of 1,000 pieces that need not exist.
class TokenFixture : public ::testing::Test {
 protected:
  static constexpr int64_t kPieces = 1000;

  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "tokens_XXXXXX";
    dir_ = ::mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  // Documents without their end marks.
  TokenFile WriteTokens(const std::string& name, const std::vector<Ids>& documents) {
    TokenFileWriter writer = *TokenFileWriter::Create(dir_ / name, 2);
    for (Ids document : documents) {
      document.push_back(kEos);
      if (!writer.Append(document)) throw std::runtime_error("cannot write tokens");
    }
    if (!writer.Finish()) throw std::runtime_error("cannot write tokens");
    return *TokenFile::Open(dir_ / name, 2);
  }

  // `count` documents of 1 to 90 random pieces.
  static std::vector<Ids> RandomDocuments(int count, uint64_t seed) {
    KeyedRandom random(seed, 7, 7);
    std::vector<Ids> documents(static_cast<size_t>(count));
    for (Ids& document : documents) {
      document.resize(1 + random.Below(90));
      for (int32_t& id : document) id = kFirstPiece + static_cast<int32_t>(random.Below(kPieces - kFirstPiece));
    }
    return documents;
  }

  static std::shared_ptr<const Objective> Make(const arch::ObjectiveSettings& settings) {
    return *MakeObjective(settings, kPieces);
  }

  std::filesystem::path dir_;
};

// The raw tokens of an example of span corruption or of a prefix language model: each span put back where its sentinel
// stands, then what the targets have before any sentinel. Padding and the last end mark of each side are left out.
inline Ids Restored(const Objective& objective, Ids inputs, Ids targets) {
  const auto is_sentinel = [&](int32_t id) { return id >= objective.Sentinel(kSentinels - 1); };
  for (Ids* side : {&inputs, &targets}) {
    while (side->back() == kPad) side->pop_back();
    EXPECT_EQ(side->back(), kEos);
    side->pop_back();
  }
  Ids raw;
  for (int32_t id : inputs) {
    if (!is_sentinel(id)) {
      raw.push_back(id);
      continue;
    }
    auto at = std::find(targets.begin(), targets.end(), id);
    EXPECT_NE(at, targets.end());
    while (++at != targets.end() && !is_sentinel(*at)) raw.push_back(*at);
  }
  for (auto at = targets.begin(); at != targets.end() && !is_sentinel(*at); ++at) raw.push_back(*at);
  return raw;
}

}  // namespace allometry::trainer
