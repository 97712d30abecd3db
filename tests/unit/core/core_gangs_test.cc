#include "tests/unit/core/core_fixture.h"

// Runs on several devices, from the sweep to the orders and back.
namespace allometry::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CoreGangsTest : public CoreFixture {
 protected:
  static std::vector<Cell> SweepOn(int64_t devices) {
    std::vector<Cell> cells{NewCell("glu", v1::RUN_KIND_PRETRAIN, 1000)};
    cells[0].devices = devices;
    cells[0].most_devices = 16;
    return cells;
  }
  // Two workers with a slot each, and a sweep of one run on two devices that both have heard of.
  void StartGang() {
    ASSERT_TRUE(Submit(SubmitOf("s"), SweepOn(2)).ok());
    first_ = Join("first");
    second_ = Join("second");
    EXPECT_TRUE(orders_[first_].desired(0).has_spec());
    EXPECT_TRUE(orders_[second_].desired(0).has_spec());
    ASSERT_TRUE(Sync(first_).ok());
    ASSERT_TRUE(Sync(second_).ok());
    ASSERT_EQ(orders_[first_].desired_size(), 1);
    ASSERT_EQ(orders_[second_].desired_size(), 1);
  }
  v1::AttemptInfo LastAttempt() {
    v1::ExplainRequest request;
    request.set_cell("s/glu");
    const auto response = core_->Explain(request);
    return *response->attempts().rbegin();
  }
  std::string Text() {
    v1::ExplainRequest request;
    request.set_cell("s/glu");
    return core_->Explain(request)->text();
  }
  int64_t first_ = 0, second_ = 0;
};

TEST_F(CoreGangsTest, EachWorkerIsGivenItsRanks) {
  StartGang();
  const v1::Assignment& zero = orders_[first_].desired(0);
  const v1::Assignment& one = orders_[second_].desired(0);
  EXPECT_EQ(zero.rank(), 0);
  EXPECT_EQ(zero.ranks(), 2);
  EXPECT_FALSE(zero.one_worker());
  EXPECT_EQ(one.rank(), 1);
  EXPECT_EQ(one.attempt_id(), zero.attempt_id());
  EXPECT_EQ(CellOf("s/glu").worker(), "first, second");
  EXPECT_THAT(LastAttempt().rank_workers(), ElementsAre("first", "second"));
}

TEST_F(CoreGangsTest, RanksOnOneWorkerAreToldSo) {
  ASSERT_TRUE(Submit(SubmitOf("s"), SweepOn(2)).ok());
  const int64_t worker = Join("only", 2);
  ASSERT_TRUE(Sync(worker).ok());
  ASSERT_EQ(orders_[worker].desired_size(), 2);
  EXPECT_TRUE(orders_[worker].desired(1).one_worker());
  EXPECT_EQ(CellOf("s/glu").worker(), "only (2)");
}

TEST_F(CoreGangsTest, TheRendezvousTravelsUntilItIsKnown) {
  StartGang();
  rendezvous_ = "first:7001 id";
  ASSERT_TRUE(Sync(first_).ok());
  EXPECT_EQ(orders_[second_].desired(0).rendezvous(), "first:7001 id") << "sent at once, without being asked for";
  EXPECT_EQ(orders_[first_].desired(0).rendezvous(), "") << "who tells it knows it";
  ASSERT_TRUE(Sync(second_).ok());
  EXPECT_EQ(orders_[second_].desired(0).rendezvous(), "") << "acknowledged";
  ASSERT_TRUE(Sync(first_).ok());
  ASSERT_TRUE(Sync(second_).ok());
  EXPECT_EQ(orders_[second_].desired(0).rendezvous(), "");
}

TEST_F(CoreGangsTest, ARestartedCoordinatorKeepsTheGangAndHearsTheRendezvousAgain) {
  StartGang();
  rendezvous_ = "first:7001 id";
  ASSERT_TRUE(Sync(first_).ok());
  now_ms_ += options_.lease_ttl_ms - 1;  // nobody was heard of since
  Restart();
  now_ms_ += options_.lease_ttl_ms - 1;
  core_->Tick();
  ASSERT_TRUE(core_->CommitBatch().ok());
  EXPECT_EQ(CellOf("s/glu").state(), v1::RUN_STATE_RUNNING) << "a full term for every rank";
  ASSERT_TRUE(Sync(second_).ok());
  ASSERT_TRUE(Sync(first_).ok());
  EXPECT_EQ(orders_[second_].desired(0).rendezvous(), "first:7001 id");
  EXPECT_TRUE(Finish(FinishOf(first_))->accepted());
  EXPECT_EQ(CellOf("s/glu").state(), v1::RUN_STATE_DONE);
}

TEST_F(CoreGangsTest, AnErrorNamesTheRankAndItsWorkerAndEndsTheOthers) {
  StartGang();
  v1::FinishRequest failed = FinishOf(second_, v1::FinishRequest::OUTCOME_DATA_ERROR);
  failed.set_exit_code(43);
  failed.set_message("a torn file");
  failed.set_device_seconds(10);
  const v1::FinishRequest late = FinishOf(first_);
  EXPECT_TRUE(Finish(failed)->accepted());
  EXPECT_EQ(orders_[first_].desired_size(), 0) << "told at once";
  EXPECT_EQ(CellOf("s/glu").state(), v1::RUN_STATE_FAILED);
  EXPECT_EQ(CellOf("s/glu").error(), "rank 1 on second: a torn file");
  EXPECT_EQ(LastAttempt().exit_code(), 43);
  EXPECT_TRUE(Finish(failed)->accepted()) << "the same question, the same answer";
  const auto refused = Finish(late);
  EXPECT_FALSE(refused->accepted()) << "the attempt had ended; that its end was accepted says nothing of this result";
  EXPECT_THAT(refused->reason(), HasSubstr("data_error"));
}

TEST_F(CoreGangsTest, RankZeroTellsTheResultAndTheOthersAreLetGo) {
  StartGang();
  EXPECT_TRUE(Finish(FinishOf(second_))->accepted());
  EXPECT_EQ(CellOf("s/glu").state(), v1::RUN_STATE_RUNNING);
  EXPECT_EQ(orders_[second_].desired_size(), 0) << "its part is over";
  Restart();
  ASSERT_TRUE(Sync(second_).ok());
  EXPECT_EQ(orders_[second_].desired_size(), 0) << "and stays over";
  ASSERT_TRUE(Sync(first_).ok());
  EXPECT_TRUE(Finish(FinishOf(first_))->accepted());
  EXPECT_EQ(CellOf("s/glu").state(), v1::RUN_STATE_DONE);
  EXPECT_EQ(LastAttempt().message(), "");
}

TEST_F(CoreGangsTest, ALostPeersCauseIsWaitedFor) {
  StartGang();
  v1::FinishRequest lost = FinishOf(first_, v1::FinishRequest::OUTCOME_PEER_LOST);
  lost.set_exit_code(46);
  lost.set_message("rank 1 does not answer");
  EXPECT_TRUE(Finish(lost)->accepted());
  EXPECT_EQ(CellOf("s/glu").state(), v1::RUN_STATE_RUNNING);
  now_ms_ += scheduler::kPeerLostWaitMs;
  core_->Tick();
  ASSERT_TRUE(core_->CommitBatch().ok());
  EXPECT_EQ(LastAttempt().outcome(), "peer_lost");
  EXPECT_EQ(LastAttempt().exit_code(), 46);
  EXPECT_EQ(LastAttempt().message(), "rank 0 on first: rank 1 does not answer");
  EXPECT_EQ(CellOf("s/glu").waiting(), v1::WAIT_REASON_BACKOFF);
  EXPECT_TRUE(Finish(lost)->accepted());
}

TEST_F(CoreGangsTest, ExplainSaysWhatAGangWaitsFor) {
  ASSERT_TRUE(Submit(SubmitOf("s"), SweepOn(2)).ok());
  Join("first");
  EXPECT_EQ(CellOf("s/glu").waiting(), v1::WAIT_REASON_NO_FITTING_WORKER);
  EXPECT_THAT(Text(), HasSubstr("needs 2 devices of one kind"));
  EXPECT_THAT(Text(), HasSubstr("at most 1 ('cpu')"));
  ASSERT_TRUE(Submit(SubmitOf("before"), {NewCell("small", v1::RUN_KIND_PRETRAIN, 1)}).ok());
  EXPECT_EQ(CellOf("before/small").state(), v1::RUN_STATE_RUNNING) << "it holds up nobody while it cannot run";
  Join("second");
  EXPECT_EQ(CellOf("s/glu").waiting(), v1::WAIT_REASON_READY);
  EXPECT_THAT(Text(), HasSubstr("waits until 2 slots are free at once: of 'cpu' there are 2"));
}

TEST_F(CoreGangsTest, AnUpdateChangesTheDevicesOfARunThatIsThere) {
  ASSERT_TRUE(Submit(SubmitOf("s"), SweepOn(2)).ok());
  const int64_t worker = Join("only");
  EXPECT_EQ(orders_[worker].desired_size(), 0);
  v1::SubmitRequest request = SubmitOf("s");
  request.set_request_uuid("another");
  EXPECT_FALSE(Submit(request, SweepOn(1)).ok()) << "it is another content";
  request.set_update(true);
  const auto updated = Submit(request, SweepOn(1));
  ASSERT_TRUE(updated.ok()) << updated.error().message;
  EXPECT_EQ(updated->new_runs(), 0) << "and the same run";
  ASSERT_TRUE(Sync(worker).ok());
  EXPECT_EQ(orders_[worker].desired_size(), 1);
}

}  // namespace
}  // namespace allometry::coordinator
