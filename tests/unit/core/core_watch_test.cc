#include "tests/unit/core/core_fixture.h"

namespace allometry::coordinator {
namespace {

using common::ErrorCode;
using ::testing::Contains;

class CoreWatchTest : public CoreFixture {
 protected:
  CoreWatchTest() { EXPECT_TRUE(Submit(SubmitOf("s"), SmallSweep()).ok()); }

  int64_t Watch(int64_t token) {
    v1::WatchRequest request;
    request.set_sweep("s");
    request.set_token(token);
    auto watch = core_->OpenWatch(request);
    EXPECT_TRUE(watch.ok()) << watch.error().message;
    return watch.ok() ? *watch : 0;
  }

  std::optional<v1::WatchEvent> Take(int64_t watch) {
    auto event = core_->TakeWatchEvent(watch);
    EXPECT_TRUE(event.ok());
    return *event;
  }
};

TEST_F(CoreWatchTest, BeginsWithEverythingAndThenTellsChangesOnce) {
  const int64_t watch = Watch(0);
  auto event = Take(watch);
  ASSERT_TRUE(event);
  EXPECT_EQ(event->cells_size(), 3);
  EXPECT_EQ(event->sweep().pending(), 3);
  EXPECT_FALSE(Take(watch));
  const int64_t worker = Join("w");
  EXPECT_THAT(ready_, Contains(watch));
  // Coalesced: lease and progress since then come as one state.
  ASSERT_TRUE(Sync(worker, 7).ok());
  event = Take(watch);
  ASSERT_TRUE(event);
  ASSERT_EQ(event->cells_size(), 1);
  EXPECT_EQ(event->cells(0).cell(), "s/prepare");
  EXPECT_EQ(event->cells(0).state(), v1::RUN_STATE_RUNNING);
  EXPECT_EQ(event->cells(0).step(), 7);
  EXPECT_FALSE(Take(watch));
}

TEST_F(CoreWatchTest, ATokenGoesOnWhereItStoppedAcrossRestarts) {
  const int64_t token = Take(Watch(0))->token();
  const int64_t worker = Join("w");
  ASSERT_TRUE(Finish(FinishOf(worker)).ok());
  Restart();
  auto event = Take(Watch(token));
  ASSERT_TRUE(event);
  ASSERT_EQ(event->cells_size(), 2);  // prepare is done, glu has started
  EXPECT_EQ(event->cells(0).state(), v1::RUN_STATE_DONE);
  EXPECT_EQ(event->cells(1).state(), v1::RUN_STATE_RUNNING);
  EXPECT_FALSE(Take(Watch(event->token())));
}

TEST_F(CoreWatchTest, ExpiredAndForeignTokensAreOutOfRange) {
  options_.kept_events = 10;
  Restart();
  const int64_t token = Take(Watch(0))->token();
  v1::SubmitRequest request = SubmitOf("s");
  request.set_update(true);
  for (int round = 0; round < 3; ++round) {
    std::vector<Cell> cells;
    for (int i = 0; i < 400; ++i)
      cells.push_back(NewCell("c" + std::to_string(round) + "-" + std::to_string(i), v1::RUN_KIND_PRETRAIN, i));
    request.set_request_uuid(std::to_string(round));
    ASSERT_TRUE(Submit(request, cells).ok());
  }
  v1::WatchRequest watch;
  watch.set_sweep("s");
  watch.set_token(token);
  EXPECT_EQ(core_->OpenWatch(watch).error().code, ErrorCode::kOutOfRange);
  watch.set_token(1'000'000);
  EXPECT_EQ(core_->OpenWatch(watch).error().code, ErrorCode::kOutOfRange);
  watch.set_sweep("nothing");
  EXPECT_EQ(core_->OpenWatch(watch).error().code, ErrorCode::kNotFound);
}

TEST_F(CoreWatchTest, ALargeSweepComesInPiecesAndTheTokenMovesAtTheEnd) {
  std::vector<Cell> cells;
  for (int i = 0; i < 1'500; ++i) cells.push_back(NewCell("c-" + std::to_string(i), v1::RUN_KIND_PRETRAIN, i));
  v1::SubmitRequest request = SubmitOf("s");
  request.set_request_uuid("large");
  request.set_update(true);
  ASSERT_TRUE(Submit(request, cells).ok());
  const int64_t watch = Watch(0);
  const auto first = Take(watch);
  EXPECT_EQ(first->token(), 0);
  const auto second = Take(watch);
  EXPECT_GT(second->token(), 0);
  EXPECT_EQ(first->cells_size() + second->cells_size(), 1'500);
  EXPECT_FALSE(Take(watch));
}

TEST_F(CoreWatchTest, AFailedCommitStartsTheWatchAnew) {
  const int64_t watch = Watch(0);
  Take(watch);
  disk_full_ = true;
  Submit(SubmitOf("t"), SmallSweep()).ok();
  disk_full_ = false;
  auto event = Take(watch);
  ASSERT_TRUE(event);
  EXPECT_EQ(event->cells_size(), 3);
  core_->CloseWatch(watch);
  EXPECT_EQ(core_->TakeWatchEvent(watch).error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace allometry::coordinator
