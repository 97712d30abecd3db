#include "common/sha256.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "common/files.h"

namespace allometry::common {
namespace {

// The three messages and digests are the examples of FIPS 180-2, appendix B.
TEST(Sha256, StandardVectors) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex(std::string(1'000'000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesAndFilesGiveTheSameDigest) {
  const std::string bytes(3'000'001, 'q');
  Sha256 sha;
  sha.Update(std::string_view(bytes).substr(0, 7));
  sha.Update(std::string_view(bytes).substr(7));
  EXPECT_EQ(sha.FinishHex(), Sha256Hex(bytes));
  auto path = std::filesystem::path(::testing::TempDir()) / "sha256_test_file";
  ASSERT_TRUE(WriteFileAtomically(path, bytes).ok());
  EXPECT_EQ(*Sha256HexOfFile(path), Sha256Hex(bytes));
}

TEST(Sha256, AbsentFileIsNotFound) {
  EXPECT_EQ(Sha256HexOfFile("/nonexistent/file").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace allometry::common
