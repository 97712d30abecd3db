#include "coordinator/server/data_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "common/grpc_status.h"
#include "coordinator/server/listen.h"

namespace allometry::coordinator {
namespace {

namespace fs = std::filesystem;
using common::ErrorCode;
using testing::HasSubstr;

class DataDirectoryTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "allometry_dir_XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
  }
  void TearDown() override { fs::remove_all(root_); }
  fs::path root_;
};

TEST_F(DataDirectoryTest, IsMadePrivateAndHeldByOne) {
  auto first = DataDirectory::Open(root_ / "a/b");
  ASSERT_TRUE(first.ok()) << first.error().message;
  struct stat info;
  ASSERT_EQ(::stat((root_ / "a/b").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  auto second = DataDirectory::Open(root_ / "a/b");
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::kFailedPrecondition);
  EXPECT_THAT(second.error().message, HasSubstr("in use by another coordinator"));
  EXPECT_THAT(second.error().message, HasSubstr("--data"));
}

TEST_F(DataDirectoryTest, TheSecondComerLearnsWhoHoldsIt) {
  auto first = DataDirectory::Open(root_);
  ASSERT_TRUE(first->WriteEndpoint({"127.0.0.1:4711", 99, "secret", "cluster"}).ok());
  auto second = DataDirectory::Open(root_);
  EXPECT_THAT(second.error().message, HasSubstr("process 99 at 127.0.0.1:4711"));
  EXPECT_THAT(second.error().message, testing::Not(HasSubstr("secret")));
}

TEST_F(DataDirectoryTest, IsFreeAgainAfterItsHolder) {
  { ASSERT_TRUE(DataDirectory::Open(root_).ok()); }
  EXPECT_TRUE(DataDirectory::Open(root_).ok());
}

TEST_F(DataDirectoryTest, EndpointIsForTheOwnerOnlyAndComesBack) {
  auto directory = DataDirectory::Open(root_);
  EXPECT_EQ(ReadEndpoint(root_).error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(directory->WriteEndpoint({"127.0.0.1:1", 7, "t0ken", "abc", true}).ok());
  struct stat info;
  ASSERT_EQ(::stat((root_ / "endpoint.json").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  auto endpoint = ReadEndpoint(root_);
  ASSERT_TRUE(endpoint.ok());
  EXPECT_EQ(endpoint->address, "127.0.0.1:1");
  EXPECT_EQ(endpoint->pid, 7);
  EXPECT_EQ(endpoint->token, "t0ken");
  EXPECT_EQ(endpoint->cluster_id, "abc");
  EXPECT_TRUE(endpoint->tls);
  ASSERT_TRUE(common::WriteFileAtomically(root_ / "endpoint.json", "{}").ok());
  EXPECT_EQ(ReadEndpoint(root_).error().code, ErrorCode::kDataLoss);
}

TEST_F(DataDirectoryTest, SaysWhatIsWrongWithAPathThatCannotBe) {
  ASSERT_TRUE(common::WriteFileAtomically(root_ / "file", "x").ok());
  auto below_a_file = DataDirectory::Open(root_ / "file/data");
  ASSERT_FALSE(below_a_file.ok());
  EXPECT_THAT(below_a_file.error().message, HasSubstr("--data"));
  if (::geteuid() == 0) return;  // root may write everywhere
  ASSERT_EQ(::chmod(root_.c_str(), 0500), 0);
  EXPECT_EQ(DataDirectory::Open(root_).error().code, ErrorCode::kPermissionDenied);
  EXPECT_EQ(DataDirectory::Open(root_ / "new").error().code, ErrorCode::kPermissionDenied);
  ASSERT_EQ(::chmod(root_.c_str(), 0700), 0);
}

TEST(DefaultDataDirTest, FollowsTheStateHome) {
  ::setenv("XDG_STATE_HOME", "/x/state", 1);
  EXPECT_EQ(DefaultDataDir(), "/x/state/allometry");
  ::unsetenv("XDG_STATE_HOME");
  ::setenv("HOME", "/home/somebody", 1);
  EXPECT_EQ(DefaultDataDir(), "/home/somebody/.local/state/allometry");
}

TEST(ListenTest, LoopbackNeedsNothingAndTheRestTlsAndToken) {
  for (const char* address : {"127.0.0.1:0", "localhost:7070", "[::1]:7070", "127.8.9.10:1"}) {
    auto plan = PlanListening({.address = address});
    ASSERT_TRUE(plan.ok()) << address;
    EXPECT_TRUE(plan->loopback);
  }
  for (const char* address : {"0.0.0.0:7070", "[::]:7070", "10.1.2.3:7070", "some-host:7070"}) {
    EXPECT_EQ(PlanListening({.address = address}).error().code, ErrorCode::kPermissionDenied) << address;
    EXPECT_EQ(PlanListening({.address = address, .token = "t"}).error().code, ErrorCode::kPermissionDenied) << address;
  }
}

TEST(ListenTest, RefusesWhatIsNoAddress) {
  for (const char* address :
       {"", "127.0.0.1", ":7070", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000", "127.0.0.1:-1", "[]:1"}) {
    auto plan = PlanListening({.address = address});
    ASSERT_FALSE(plan.ok()) << address;
    EXPECT_EQ(plan.error().code, ErrorCode::kInvalidArgument) << address;
    EXPECT_THAT(plan.error().message, HasSubstr("host:port"));
  }
}

TEST(ListenTest, WantsWholeTls) {
  EXPECT_EQ(PlanListening({.tls_key = "/x"}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(PlanListening({.tls_certificate = "/nonexistent/a", .tls_key = "/nonexistent/b"}).error().code,
            ErrorCode::kNotFound);
}

TEST(GrpcStatusTest, EveryErrorComesBackAsItself) {
  for (int i = 0; i <= static_cast<int>(ErrorCode::kInternal); ++i) {
    const auto code = static_cast<ErrorCode>(i);
    const auto back = common::FromGrpc(common::ToGrpc(common::Error{code, "why"}));
    EXPECT_EQ(back.error().code, code) << common::ErrorCodeName(code);
    EXPECT_EQ(back.error().message, "why");
  }
  EXPECT_TRUE(common::FromGrpc(grpc::Status::OK).ok());
  EXPECT_EQ(common::FromGrpc({grpc::StatusCode::DEADLINE_EXCEEDED, "late"}, "Get").error().message, "Get: late");
}

}  // namespace
}  // namespace allometry::coordinator
