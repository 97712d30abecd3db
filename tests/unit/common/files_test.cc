#include "common/files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

namespace allometry::common {
namespace {

namespace fs = std::filesystem;

class FilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "files_test_XXXXXX";
    dir_ = ::mkdtemp(pattern.data());
  }
  void TearDown() override { fs::remove_all(dir_); }
  fs::path dir_;
};

TEST_F(FilesTest, AtomicWriteReplacesAndLeavesNoTemporary) {
  ASSERT_TRUE(WriteFileAtomically(dir_ / "f", "old").ok());
  ASSERT_TRUE(WriteFileAtomically(dir_ / "f", "new").ok());
  EXPECT_EQ(*ReadFile(dir_ / "f"), "new");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_), fs::directory_iterator()), 1);
}

TEST_F(FilesTest, AtomicWriteHonoursTheMode) {
  ASSERT_TRUE(WriteFileAtomically(dir_ / "secret", "x", 0600).ok());
  struct stat info;
  ASSERT_EQ(::stat((dir_ / "secret").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(FilesTest, FailedWriteKeepsTheOldContentAndNamesThePath) {
  auto status = WriteFileAtomically(dir_ / "absent" / "f", "x");
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kNotFound);
  EXPECT_NE(status.error().message.find("absent"), std::string::npos);
}

TEST_F(FilesTest, FullDiskIsResourceExhausted) {
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full here";
  fs::create_symlink("/dev/full", dir_ / ("f.tmp" + std::to_string(::getpid())));
  auto status = WriteFileAtomically(dir_ / "f", "x");
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kResourceExhausted);
  EXPECT_FALSE(fs::exists(dir_ / "f"));
}

TEST_F(FilesTest, LockIsExclusiveAndEndsWithItsObject) {
  {
    auto lock = FileLock::Acquire(dir_ / "lock");
    ASSERT_TRUE(lock.ok());
    EXPECT_EQ(FileLock::Acquire(dir_ / "lock").error().code, ErrorCode::kFailedPrecondition);
  }
  EXPECT_TRUE(FileLock::Acquire(dir_ / "lock").ok());
}

}  // namespace
}  // namespace allometry::common
