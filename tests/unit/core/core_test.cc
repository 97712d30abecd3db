#include "tests/unit/core/core_fixture.h"

namespace allometry::coordinator {
namespace {

using common::ErrorCode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CoreSweepTest : public CoreFixture {
 protected:
  std::vector<std::string> NamesOf(const v1::ListRequest& request) {
    std::vector<std::string> names;
    auto response = core_->List(request);
    EXPECT_TRUE(response.ok()) << response.error().message;
    if (response.ok())
      for (const v1::CellStatus& cell : response->cells()) names.push_back(cell.cell());
    return names;
  }
};

TEST_F(CoreSweepTest, SubmittingIsIdempotentByUuidAndByContent) {
  const auto first = Submit(SubmitOf("s"), SmallSweep());
  ASSERT_TRUE(first.ok()) << first.error().message;
  EXPECT_EQ(first->new_runs(), 3);
  EXPECT_EQ(first->sweep().cells(), 3);
  EXPECT_EQ(first->sweep().state(), v1::SWEEP_STATE_ACTIVE);
  const auto repeated = Submit(SubmitOf("s"), SmallSweep());
  ASSERT_TRUE(repeated.ok());
  v1::SubmitRequest other_client = SubmitOf("s");
  other_client.set_request_uuid("another");
  const auto continued = Submit(other_client, SmallSweep());
  ASSERT_TRUE(continued.ok());
  EXPECT_EQ(continued->new_runs(), 0);
  EXPECT_EQ(continued->reused_runs(), 3);
  EXPECT_EQ(core_->Status().runs(), 3);
}

TEST_F(CoreSweepTest, AChangedSpecNeedsUpdateAndKeepsWhatItDrops) {
  ASSERT_TRUE(Submit(SubmitOf("s"), SmallSweep()).ok());
  auto cells = SmallSweep();
  cells.pop_back();
  cells.push_back(NewCell("lconv", v1::RUN_KIND_PRETRAIN, 5, {{"data", cells[0].identity}}));
  v1::SubmitRequest changed = SubmitOf("s");
  changed.set_request_uuid("second");
  EXPECT_EQ(Submit(changed, cells).error().code, ErrorCode::kAlreadyExists);
  changed.set_update(true);
  const auto updated = Submit(changed, cells);
  ASSERT_TRUE(updated.ok()) << updated.error().message;
  EXPECT_EQ(updated->sweep().cells(), 3);
  v1::ListRequest list;
  list.set_sweep("s");
  EXPECT_THAT(NamesOf(list), ElementsAre("s/prepare", "s/glu", "s/lconv"));
  EXPECT_EQ(core_->Status().runs(), 4);
  EXPECT_EQ(CellOf("s/glu-ft").waiting(), v1::WAIT_REASON_CANCELLED);
  Restart();
  EXPECT_THAT(NamesOf(list), ElementsAre("s/prepare", "s/glu", "s/lconv"));
}

TEST_F(CoreSweepTest, TheSameCellInTwoSweepsIsOneRun) {
  ASSERT_TRUE(Submit(SubmitOf("a"), SmallSweep()).ok());
  const auto second = Submit(SubmitOf("b"), SmallSweep());
  EXPECT_EQ(second->new_runs(), 0);
  EXPECT_EQ(CellOf("a/glu").run_id(), CellOf("b/glu").run_id());
}

TEST_F(CoreSweepTest, BadExpansionsAreRefusedAndLeaveNothing) {
  EXPECT_EQ(Submit(SubmitOf("s"), {}).error().code, ErrorCode::kInvalidArgument);
  auto cells = SmallSweep();
  std::swap(cells[0], cells[2]);
  EXPECT_EQ(Submit(SubmitOf("s"), cells).error().code, ErrorCode::kInvalidArgument);
  v1::SubmitRequest policy = SubmitOf("s");
  policy.mutable_spec()->mutable_scheduling()->set_policy("random");
  EXPECT_THAT(Submit(policy, SmallSweep()).error().message, HasSubstr("fewest_flops_first"));
  EXPECT_EQ(core_->Get("s").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(core_->Status().runs(), 0);
}

TEST_F(CoreSweepTest, ALargeSweepIsInvisibleUntilItIsWhole) {
  options_.cells_per_transaction = 10;
  Restart();
  std::vector<Cell> cells;
  for (int i = 0; i < 35; ++i) cells.push_back(NewCell("c-" + std::to_string(i), v1::RUN_KIND_PRETRAIN, i));
  bool replied = false;
  core_->Submit(SubmitOf("big"), cells, [&](common::Result<v1::SubmitResponse> r) { replied = r.ok(); });
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(core_->CommitBatch().ok());
    EXPECT_FALSE(replied);
    EXPECT_EQ(core_->Get("big").error().code, ErrorCode::kNotFound);
  }
  // A restart in between drops what was expanded; the client submits again.
  Restart();
  EXPECT_EQ(core_->Get("big").error().code, ErrorCode::kNotFound);
  const auto again = Submit(SubmitOf("big"), cells);
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(again->sweep().cells(), 35);
  EXPECT_EQ(core_->Status().runs(), 35);
}

TEST_F(CoreSweepTest, ListsPagesAndFilters) {
  ASSERT_TRUE(Submit(SubmitOf("s"), SmallSweep()).ok());
  v1::ListRequest list;
  list.set_sweep("s");
  list.set_page_size(2);
  auto page = core_->List(list);
  EXPECT_EQ(page->cells_size(), 2);
  list.set_page_token(page->next_page_token());
  page = core_->List(list);
  ASSERT_EQ(page->cells_size(), 1);
  EXPECT_EQ(page->cells(0).cell(), "s/glu-ft");
  EXPECT_EQ(page->cells(0).costs().forward_flops(), 1234);
  EXPECT_EQ(page->next_page_token(), "");
  list.clear_page_token();
  list.set_filter("kind=pretrain,architecture=glu");
  EXPECT_THAT(NamesOf(list), ElementsAre("s/glu"));
  list.set_filter("colour=red");
  EXPECT_EQ(core_->List(list).error().code, ErrorCode::kInvalidArgument);
  list.clear_filter();
  list.set_page_token("x");
  EXPECT_EQ(core_->List(list).error().code, ErrorCode::kOutOfRange);
  list.clear_page_token();
  list.add_states(v1::RUN_STATE_DONE);
  EXPECT_THAT(NamesOf(list), ElementsAre());
}

TEST_F(CoreSweepTest, PlanSaysWhatExists) {
  const auto cells = SmallSweep();
  EXPECT_EQ(core_->Plan(cells)->cells(1).existing(), v1::RUN_STATE_UNSPECIFIED);
  ASSERT_TRUE(Submit(SubmitOf("s"), cells).ok());
  const auto plan = core_->Plan(cells);
  EXPECT_EQ(plan->cells(1).existing(), v1::RUN_STATE_PENDING);
  EXPECT_EQ(plan->training_flops(), 1010);
}

TEST_F(CoreSweepTest, CancellingACellTakesItsDescendantsAndResubmittingRevivesThem) {
  ASSERT_TRUE(Submit(SubmitOf("s"), SmallSweep()).ok());
  v1::CancelRequest cancel;
  cancel.set_sweep("s");
  cancel.add_cells("s/glu");
  const auto response = Call<v1::CancelResponse>(&Core::Cancel, cancel);
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->withdrawn(), 2);
  EXPECT_EQ(core_->Get("s")->cells(), 1);
  EXPECT_EQ(CellOf("s/glu-ft").waiting(), v1::WAIT_REASON_CANCELLED);
  v1::SubmitRequest again = SubmitOf("s");
  again.set_request_uuid("again");
  ASSERT_TRUE(Submit(again, SmallSweep()).ok());
  EXPECT_EQ(core_->Get("s")->cells(), 3);
  Restart();
  EXPECT_EQ(core_->Get("s")->cells(), 3);
  cancel.set_cells(0, "nothing");
  EXPECT_EQ(Call<v1::CancelResponse>(&Core::Cancel, cancel).error().code, ErrorCode::kNotFound);
}

TEST_F(CoreSweepTest, PausingSurvivesARestart) {
  ASSERT_TRUE(Submit(SubmitOf("s"), SmallSweep()).ok());
  v1::PauseRequest pause;
  pause.set_sweep("s");
  EXPECT_EQ(Call<v1::Sweep>(&Core::Pause, pause)->state(), v1::SWEEP_STATE_PAUSED);
  Restart();
  EXPECT_EQ(core_->Get("s")->state(), v1::SWEEP_STATE_PAUSED);
  EXPECT_EQ(CellOf("s/prepare").waiting(), v1::WAIT_REASON_PAUSED);
  v1::ResumeRequest resume;
  resume.set_sweep("s");
  EXPECT_EQ(Call<v1::Sweep>(&Core::Resume, resume)->state(), v1::SWEEP_STATE_ACTIVE);
}

TEST_F(CoreSweepTest, AFailedCommitFailsItsRepliesAndChangesNothing) {
  ASSERT_TRUE(Submit(SubmitOf("s"), SmallSweep()).ok());
  disk_full_ = true;
  EXPECT_EQ(Submit(SubmitOf("t"), SmallSweep()).error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(core_->Get("t").error().code, ErrorCode::kNotFound);
  EXPECT_NE(core_->Status().storage_error(), "");
  disk_full_ = false;
  EXPECT_TRUE(Submit(SubmitOf("t"), SmallSweep()).ok());
  EXPECT_EQ(core_->Status().storage_error(), "");
  EXPECT_EQ(core_->Status().runs(), 3);
}

TEST_F(CoreSweepTest, EventsThatArriveTogetherShareATransaction) {
  int replies = 0;
  for (const char* name : {"a", "b", "c"})
    core_->Submit(SubmitOf(name), SmallSweep(), [&](common::Result<v1::SubmitResponse> r) { replies += r.ok(); });
  ASSERT_TRUE(core_->CommitBatch().ok());
  EXPECT_EQ(replies, 3);
  EXPECT_THAT(core_->Status().batch_histogram(), ElementsAre(0, 1));  // one batch of 2 or 3
}

TEST_F(CoreSweepTest, TheClusterIdOutlivesRestarts) {
  const std::string id = core_->cluster_id();
  Restart();
  EXPECT_EQ(core_->cluster_id(), id);
  EXPECT_EQ(id.size(), 36u);
}

}  // namespace
}  // namespace allometry::coordinator
