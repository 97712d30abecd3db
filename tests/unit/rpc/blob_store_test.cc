#include "coordinator/blobs/blob_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <fstream>

#include "common/clock.h"
#include "common/files.h"

namespace allometry::coordinator {
namespace {

namespace fs = std::filesystem;
using common::ErrorCode;

// 3 MB that no compressor or filter would like, so every chunk differs.
std::string Content(size_t bytes, unsigned seed) {
  std::string out(bytes, '\0');
  uint32_t state = seed * 2654435761u + 1;
  for (char& c : out) {
    state = state * 1664525u + 1013904223u;
    c = static_cast<char>(state >> 24);
  }
  return out;
}

class BlobStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "allometry_blobs_XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
    Reopen();
  }
  void TearDown() override { fs::remove_all(root_); }

  void Reopen(BlobStore::Options options = {}) {
    auto store = BlobStore::Open(root_, std::move(options));
    ASSERT_TRUE(store.ok()) << store.error().message;
    store_ = std::move(store).value();
  }

  common::Status Put(const std::string& sha256, std::string_view content, int64_t offset = 0) {
    ALLO_ASSIGN_OR_RETURN(auto upload, store_->BeginUpload(sha256, offset, static_cast<int64_t>(content.size())));
    ALLO_RETURN_IF_ERROR(upload->Append(content.substr(static_cast<size_t>(offset))));
    return upload->Finish();
  }

  std::string Get(const std::string& sha256, int64_t offset = 0) {
    auto reader = store_->OpenReader(sha256, offset);
    EXPECT_TRUE(reader.ok()) << reader.error().message;
    std::string out;
    for (;;) {
      auto piece = (*reader)->Read(1 << 20);
      EXPECT_TRUE(piece.ok());
      if (piece->empty()) return out;
      out += *piece;
    }
  }

  int64_t FilesUnder(const fs::path& path) {
    int64_t files = 0;
    for (const auto& entry : fs::recursive_directory_iterator(path)) files += entry.is_regular_file();
    return files;
  }

  fs::path root_;
  std::unique_ptr<BlobStore> store_;
};

TEST_F(BlobStoreTest, GivesBackWhatWasPutFromAnyOffset) {
  const std::string content = Content(3'000'001, 1), sha256 = common::Sha256Hex(content);
  EXPECT_FALSE(store_->Has(sha256));
  ASSERT_TRUE(Put(sha256, content).ok());
  EXPECT_TRUE(store_->Has(sha256));
  EXPECT_EQ(Get(sha256), content);
  EXPECT_EQ(Get(sha256, 2'999'990), content.substr(2'999'990));
  EXPECT_EQ(Get(sha256, 3'000'001), "");
  EXPECT_EQ(store_->OpenReader(sha256, 3'000'002).error().code, ErrorCode::kOutOfRange);
  EXPECT_EQ(store_->TotalBytes(), 3'000'001);
  Reopen();
  EXPECT_EQ(Get(sha256), content) << "a new process must find it";
}

TEST_F(BlobStoreTest, HoldsAnEmptyBlob) {
  const std::string sha256 = common::Sha256Hex("");
  ASSERT_TRUE(Put(sha256, "").ok());
  EXPECT_EQ(Get(sha256), "");
}

TEST_F(BlobStoreTest, GoesOnWithABrokenUploadWhereItEnded) {
  const std::string content = Content(2'500'000, 2), sha256 = common::Sha256Hex(content);
  {
    auto upload = store_->BeginUpload(sha256, 0, 2'500'000);
    ASSERT_TRUE((*upload)->Append(content.substr(0, 1'048'576)).ok());
  }
  Reopen();
  auto stat = store_->Stat(sha256);
  EXPECT_FALSE(stat->complete);
  ASSERT_EQ(stat->bytes, 1'048'576);
  EXPECT_EQ(Put(sha256, content, 1'000'000).error().code, ErrorCode::kAborted) << "another offset than what is kept";
  ASSERT_TRUE(Put(sha256, content, 1'048'576).ok());
  EXPECT_EQ(Get(sha256), content);
  EXPECT_EQ(FilesUnder(root_ / "partial"), 0);
}

TEST_F(BlobStoreTest, RefusesBytesOfAnotherHashAndKeepsNothing) {
  const std::string content = Content(1000, 3), sha256 = common::Sha256Hex(Content(1000, 4));
  EXPECT_EQ(Put(sha256, content).error().code, ErrorCode::kDataLoss);
  EXPECT_FALSE(store_->Has(sha256));
  EXPECT_EQ(store_->Stat(sha256)->bytes, 0) << "wrong bytes must not be gone on with";
}

TEST_F(BlobStoreTest, RefusesTooManyTooFewAndNonsense) {
  const std::string content = Content(1000, 5), sha256 = common::Sha256Hex(content);
  auto upload = store_->BeginUpload(sha256, 0, 999);
  EXPECT_EQ((*upload)->Append(content).error().code, ErrorCode::kInvalidArgument);
  upload = store_->BeginUpload(sha256, 0, 1000);
  ASSERT_TRUE((*upload)->Append(content.substr(0, 10)).ok());
  EXPECT_EQ((*upload)->Finish().error().code, ErrorCode::kFailedPrecondition);
  for (const std::string& bad :
       {std::string(), std::string("../../etc/passwd"), std::string(64, 'G'), std::string(64, 'A')}) {
    EXPECT_EQ(store_->BeginUpload(bad, 0, 1).error().code, ErrorCode::kInvalidArgument) << bad;
    EXPECT_EQ(store_->Stat(bad).error().code, ErrorCode::kInvalidArgument) << bad;
    EXPECT_EQ(store_->OpenReader(bad, 0).error().code, ErrorCode::kInvalidArgument) << bad;
  }
  EXPECT_EQ(store_->BeginUpload(sha256, 7, 6).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(store_->OpenReader(sha256, 0).error().code, ErrorCode::kNotFound);
}

TEST_F(BlobStoreTest, TwoUploadsOfOneBlobBothSucceed) {
  const std::string content = Content(2000, 6), sha256 = common::Sha256Hex(content);
  auto first = store_->BeginUpload(sha256, 0, 2000);
  ASSERT_TRUE((*first)->Append(content.substr(0, 500)).ok());
  EXPECT_EQ(store_->Stat(sha256)->bytes, 0) << "a part that is being written belongs to its writer";
  ASSERT_TRUE(Put(sha256, content).ok());
  ASSERT_TRUE((*first)->Append(content.substr(500)).ok());
  EXPECT_TRUE((*first)->Finish().ok());
  EXPECT_EQ(Get(sha256), content);
  first = store_->BeginUpload(sha256, 0, 2000);  // a third, of what is here already
  EXPECT_TRUE((*first)->Append(content).ok());
  EXPECT_TRUE((*first)->Finish().ok());
}

// The disk is full at the Nth write, N = 1 until the whole upload succeeds.
TEST_F(BlobStoreTest, SurvivesAFullDiskAtEveryWrite) {
  const std::string content = Content(5000, 7), sha256 = common::Sha256Hex(content);
  int writes = 0, fails_at = 0, failures = 0;
  BlobStore::Options options;
  options.write = [&](int fd, const void* data, size_t size) -> ssize_t {
    if (++writes == fails_at) {
      errno = ENOSPC;
      return -1;
    }
    return ::write(fd, data, std::min<size_t>(size, 512));
  };
  Reopen(options);
  for (fails_at = 1;; ++fails_at) {
    writes = 0;
    const auto status = Put(sha256, content);
    if (status.ok()) break;
    ++failures;
    ASSERT_EQ(status.error().code, ErrorCode::kResourceExhausted);
    ASSERT_FALSE(store_->Has(sha256));
    ASSERT_LT(fails_at, 1000);
  }
  EXPECT_EQ(failures, 10) << "5,000 bytes are ten writes of 512";
  EXPECT_EQ(Get(sha256), content);
}

TEST_F(BlobStoreTest, AFullDiskKeepsWhatArrived) {
  const std::string content = Content(4096, 8), sha256 = common::Sha256Hex(content);
  int writes = 0;
  BlobStore::Options options;
  options.write = [&](int fd, const void* data, size_t size) -> ssize_t {
    if (++writes == 3) {
      errno = ENOSPC;
      return -1;
    }
    return ::write(fd, data, std::min<size_t>(size, 1024));
  };
  Reopen(options);
  EXPECT_EQ(Put(sha256, content).error().code, ErrorCode::kResourceExhausted);
  ASSERT_EQ(store_->Stat(sha256)->bytes, 2048);
  EXPECT_TRUE(Put(sha256, content, 2048).ok());
  EXPECT_EQ(Get(sha256), content);
}

TEST_F(BlobStoreTest, CollectsWhatNobodyNamedForADay) {
  const std::string named = Content(100, 9), unnamed = Content(200, 10), fresh = Content(300, 11);
  for (const std::string& content : {named, unnamed, fresh}) ASSERT_TRUE(Put(common::Sha256Hex(content), content).ok());
  const std::string broken = common::Sha256Hex("broken");
  ASSERT_TRUE((*store_->BeginUpload(broken, 0, 6))->Append("bro").ok());
  const int64_t now = common::UnixMillis(), day = 86'400'000;
  const auto age = [&](const fs::path& path) {
    fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::hours(25));
  };
  for (const std::string& content : {named, unnamed}) {
    const std::string sha256 = common::Sha256Hex(content);
    age(root_ / sha256.substr(0, 2) / sha256);
  }
  age(root_ / "partial" / broken);
  auto collected =
      store_->Collect([&](const std::string& sha256) { return sha256 == common::Sha256Hex(named); }, now - day);
  ASSERT_TRUE(collected.ok()) << collected.error().message;
  EXPECT_EQ(collected->blobs, 2);
  EXPECT_EQ(collected->bytes, 203);
  EXPECT_TRUE(store_->Has(common::Sha256Hex(named)));
  EXPECT_TRUE(store_->Has(common::Sha256Hex(fresh)));
  EXPECT_FALSE(store_->Has(common::Sha256Hex(unnamed)));
  EXPECT_EQ(store_->Stat(broken)->bytes, 0);
}

TEST_F(BlobStoreTest, AskingForABlobRenewsItsAge) {
  const std::string content = Content(100, 12), sha256 = common::Sha256Hex(content);
  ASSERT_TRUE(Put(sha256, content).ok());
  fs::last_write_time(root_ / sha256.substr(0, 2) / sha256, fs::file_time_type::clock::now() - std::chrono::hours(25));
  ASSERT_TRUE(store_->Stat(sha256)->complete);
  const auto nobody = [](const std::string&) { return false; };
  EXPECT_EQ(store_->Collect(nobody, common::UnixMillis() - 86'400'000)->blobs, 0);
  EXPECT_EQ(store_->Collect(nobody, common::UnixMillis() + 1000)->blobs, 1);
}

}  // namespace
}  // namespace allometry::coordinator
