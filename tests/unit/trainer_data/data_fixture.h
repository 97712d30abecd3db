#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/sha256.h"
#include "worker/trainer/data/random.h"

namespace allometry::trainer {

// A folder that goes away with the test, files in it, and runs of kind "prepare" that name them.
class DataFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "trainer_data_XXXXXX";
    dir_ = ::mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::filesystem::path Write(const std::string& name, const std::string& bytes) {
    std::filesystem::create_directories((dir_ / name).parent_path());
    std::ofstream(dir_ / name, std::ios::binary) << bytes;
    return dir_ / name;
  }

  // The manifest entry of a file; its path goes into execution_.
  common::Json Manifest(const std::filesystem::path& path) {
    const std::string sha256 = *common::Sha256HexOfFile(path);
    execution_["files"][sha256] = path.string();
    return {{"name", path.filename().string()}, {"bytes", std::filesystem::file_size(path)}, {"sha256", sha256}};
  }

  common::Json TextRun(const std::filesystem::path& text, int64_t vocabulary, double fraction = 0.2) {
    return {{"kind", "prepare"},
            {"corpus", {{"format", "text"}, {"files", {Manifest(text)}}, {"validation_fraction", fraction}}},
            {"tokenizer", {{"vocabulary", vocabulary}}}};
  }

  // Documents of made-up words, separated by blank lines, the same for the same seed.
  static std::string MadeUpText(int documents, int words, uint64_t seed) {
    static const std::vector<std::string> kSyllables = {"ba",  "ko",  "ri",  "tel", "mun", "sha", "vor",
                                                        "pli", "den", "ou",  "gra", "xi",  "nor", "wep",
                                                        "jud", "fa",  "lin", "qua", "zes", "hy"};
    std::string text;
    for (int d = 0; d < documents; ++d) {
      KeyedRandom random(seed, 0, static_cast<uint64_t>(d));
      for (int w = 0; w < words; ++w) {
        // Low draws are frequent, so that words repeat as they do in a language.
        const uint32_t word = random.Below(random.Below(random.Below(800) + 1) + 1);
        KeyedRandom spelling(99, 0, word);
        for (uint32_t s = 0, n = 1 + spelling.Below(4); s < n; ++s) text += kSyllables[spelling.Below(20)];
        text += w + 1 < words ? " " : ".\n\n";
      }
    }
    return text;
  }

  static std::string ReadAll(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::filesystem::path dir_;
  common::Json execution_ = {{"files", common::Json::object()}};
};

}  // namespace allometry::trainer
