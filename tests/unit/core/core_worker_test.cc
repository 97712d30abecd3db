#include "tests/unit/core/core_fixture.h"

namespace allometry::coordinator {
namespace {

using common::ErrorCode;
using ::testing::HasSubstr;

class CoreWorkerTest : public CoreFixture {
 protected:
  CoreWorkerTest() { EXPECT_TRUE(Submit(SubmitOf("s"), SmallSweep()).ok()); }

  const v1::RunSpec& SpecOf(int64_t worker) { return orders_.at(worker).desired(0).spec(); }
  std::string CellNow(int64_t worker) { return orders_[worker].desired_size() == 0 ? "" : SpecOf(worker).cell(); }
};

TEST_F(CoreWorkerTest, ASweepRunsFromPrepareToFinetune) {
  const int64_t worker = Join("w");
  EXPECT_EQ(CellNow(worker), "s/prepare");
  EXPECT_TRUE(SpecOf(worker).keep_outputs());
  ASSERT_TRUE(Finish(FinishOf(worker))->accepted());
  EXPECT_EQ(CellNow(worker), "s/glu");
  ASSERT_EQ(SpecOf(worker).inputs_size(), 1);
  EXPECT_EQ(SpecOf(worker).inputs(0).output().files(0).sha256(), "sha of data1");
  EXPECT_EQ(SpecOf(worker).precision(), "auto");
  ASSERT_TRUE(Sync(worker, 10, "bf16").ok());
  ASSERT_TRUE(Finish(FinishOf(worker))->accepted());
  EXPECT_EQ(CellNow(worker), "s/glu-ft");
  EXPECT_EQ(SpecOf(worker).inputs_size(), 2);
  EXPECT_EQ(SpecOf(worker).inputs(1).output().files(0).sha256(), "sha of model2");
  EXPECT_EQ(SpecOf(worker).precision(), "bf16");  // inherited
  EXPECT_FALSE(SpecOf(worker).keep_outputs());
  ASSERT_TRUE(Finish(FinishOf(worker))->accepted());
  EXPECT_EQ(core_->Get("s")->state(), v1::SWEEP_STATE_FINISHED);
  EXPECT_EQ(core_->Get("s")->flops_spent(), 1010);
  EXPECT_THAT(CellOf("s/glu").result_json(), HasSubstr("2.5"));
  Restart();
  EXPECT_EQ(core_->Get("s")->state(), v1::SWEEP_STATE_FINISHED);
  EXPECT_TRUE(*core_->NamesBlob("sha of model2"));
  EXPECT_FALSE(*core_->NamesBlob("sha of something"));
}

TEST_F(CoreWorkerTest, FinishingTwiceGivesTheSameAnswerAndOneResult) {
  const int64_t worker = Join("w");
  const v1::FinishRequest finish = FinishOf(worker);
  EXPECT_TRUE(Finish(finish)->accepted());
  EXPECT_TRUE(Finish(finish)->accepted());
  Restart();
  EXPECT_TRUE(Finish(finish)->accepted());
  v1::FinishRequest stale = finish;
  stale.set_generation(finish.generation() + 1);
  EXPECT_FALSE(Finish(stale)->accepted());
}

TEST_F(CoreWorkerTest, AResultThatNamesAnAbsentBlobIsRefusedUntilItIsThere) {
  const int64_t worker = Join("w");
  missing_.insert("sha of data1");
  EXPECT_EQ(Finish(FinishOf(worker)).error().code, ErrorCode::kFailedPrecondition);
  EXPECT_EQ(CellOf("s/prepare").state(), v1::RUN_STATE_RUNNING);
  missing_.clear();
  EXPECT_TRUE(Finish(FinishOf(worker))->accepted());
}

TEST_F(CoreWorkerTest, AResultThatCannotBeReadIsACrash) {
  const int64_t worker = Join("w");
  v1::FinishRequest finish = FinishOf(worker);
  finish.set_result_json("[1, 2");
  ASSERT_TRUE(Finish(finish).ok());
  EXPECT_EQ(CellOf("s/prepare").state(), v1::RUN_STATE_PENDING);
  EXPECT_EQ(CellOf("s/prepare").waiting(), v1::WAIT_REASON_BACKOFF);
  EXPECT_THAT(CellOf("s/prepare").error(), HasSubstr("JSON"));
}

TEST_F(CoreWorkerTest, ActivationCheckpointingIsTheSweepsAndLivesThroughARestart) {
  v1::SubmitRequest request = SubmitOf("checkpointing");
  request.mutable_spec()->set_activation_checkpointing(true);
  request.mutable_spec()->mutable_scheduling()->set_priority(9);
  ASSERT_TRUE(Submit(request, {NewCell("lone", v1::RUN_KIND_PREPARE, 0)}).ok());
  const int64_t worker = Join("w", 2);
  Restart();
  ASSERT_TRUE(Sync(worker).ok());
  const auto& desired = orders_[worker].desired();
  ASSERT_EQ(desired.size(), 2);
  for (const v1::Assignment& assignment : desired)
    EXPECT_EQ(assignment.spec().activation_checkpointing(), assignment.spec().cell() == "checkpointing/lone");
}

TEST_F(CoreWorkerTest, ModelsAreKeptForChildrenOrWhereTheSweepWantsThem) {
  v1::SubmitRequest request = SubmitOf("keeping");
  request.mutable_spec()->set_keep_models("all");
  ASSERT_TRUE(Submit(request, {NewCell("lone", v1::RUN_KIND_PRETRAIN, 5)}).ok());
  Restart();
  const int64_t worker = Join("w");
  std::map<std::string, bool> kept;
  for (int cell = 0; cell < 4; ++cell) {
    kept[CellNow(worker)] = SpecOf(worker).keep_outputs();
    ASSERT_TRUE(Finish(FinishOf(worker)).ok());
  }
  EXPECT_EQ(kept, (std::map<std::string, bool>{
                      {"s/prepare", true}, {"s/glu", true}, {"s/glu-ft", false}, {"keeping/lone", true}}));
}

TEST_F(CoreWorkerTest, OutputsAreThoseOfADoneCell) {
  v1::OutputsRequest glu;
  glu.set_cell("s/glu");
  EXPECT_EQ(core_->OutputsOfCell(glu).error().code, ErrorCode::kFailedPrecondition);
  const int64_t worker = Join("w");
  ASSERT_TRUE(Finish(FinishOf(worker)).ok());
  ASSERT_TRUE(Finish(FinishOf(worker)).ok());
  const auto outputs = core_->OutputsOfCell(glu);
  ASSERT_TRUE(outputs.ok());
  EXPECT_EQ(outputs->kind(), v1::RUN_KIND_PRETRAIN);
  ASSERT_EQ(outputs->outputs_size(), 1) << "the model, if nothing else is named";
  EXPECT_EQ(outputs->outputs(0).name(), "model");
  EXPECT_EQ(outputs->outputs(0).files(0).path(), "model.bin");
  EXPECT_EQ(outputs->outputs(0).files(0).bytes(), 3);
  glu.set_output("predictions");
  EXPECT_THAT(core_->OutputsOfCell(glu).error().message, HasSubstr("left no output 'predictions'"));
  v1::OutputsRequest absent;
  absent.set_cell("s/none");
  EXPECT_EQ(core_->OutputsOfCell(absent).error().code, ErrorCode::kNotFound);
}

// A sweep that did not want the model, changed to want it.
TEST_F(CoreWorkerTest, RetryTrainsANamedCellAgainWhoseModelWasNotKept) {
  const int64_t worker = Join("w");
  for (int cell = 0; cell < 3; ++cell) {
    v1::FinishRequest finish = FinishOf(worker);
    if (CellNow(worker) == "s/glu-ft") {
      for (v1::Output& output : *finish.mutable_outputs()) output.set_name("predictions");
      finish.mutable_outputs()->DeleteSubrange(1, finish.outputs_size() - 1);
    }
    ASSERT_TRUE(Finish(finish).ok());
  }
  v1::OutputsRequest tuned;
  tuned.set_cell("s/glu-ft");
  EXPECT_THAT(core_->OutputsOfCell(tuned).error().message, HasSubstr("was not kept"));
  tuned.set_output("predictions");
  ASSERT_TRUE(core_->OutputsOfCell(tuned).ok());
  EXPECT_EQ(core_->OutputsOfCell(tuned)->outputs(0).name(), "predictions");
  tuned.clear_output();
  v1::RetryRequest retry;
  retry.set_sweep("s");
  retry.add_cells("glu-ft");
  EXPECT_EQ(Call<v1::RetryResponse>(&Core::Retry, retry)->retried(), 0);
  v1::SubmitRequest update = SubmitOf("s");
  update.mutable_spec()->set_keep_models("all");
  update.set_request_uuid("another");
  update.set_update(true);
  ASSERT_TRUE(Submit(update, SmallSweep()).ok());
  v1::RetryRequest all;
  all.set_sweep("s");
  EXPECT_EQ(Call<v1::RetryResponse>(&Core::Retry, all)->retried(), 0);  // not unless it is named
  EXPECT_EQ(Call<v1::RetryResponse>(&Core::Retry, retry)->retried(), 1);
  ASSERT_EQ(CellNow(worker), "s/glu-ft");
  EXPECT_TRUE(SpecOf(worker).keep_outputs());
  ASSERT_TRUE(Finish(FinishOf(worker)).ok());
  EXPECT_TRUE(core_->OutputsOfCell(tuned).ok());
}

TEST_F(CoreWorkerTest, OutOfMemoryHalvesTheMicroBatchFromTheRecipesBatch) {
  const int64_t worker = Join("w");
  ASSERT_TRUE(Finish(FinishOf(worker, v1::FinishRequest::OUTCOME_OUT_OF_MEMORY)).ok());
  ASSERT_EQ(CellNow(worker), "s/prepare");
  EXPECT_EQ(SpecOf(worker).micro_batch(), 8);
  ASSERT_TRUE(Finish(FinishOf(worker, v1::FinishRequest::OUTCOME_OUT_OF_MEMORY)).ok());
  EXPECT_EQ(SpecOf(worker).micro_batch(), 4);
  v1::FinishRequest told = FinishOf(worker, v1::FinishRequest::OUTCOME_OUT_OF_MEMORY);
  told.set_micro_batch(2);  // the trainer had halved it itself
  ASSERT_TRUE(Finish(told).ok());
  EXPECT_EQ(SpecOf(worker).micro_batch(), 1);
}

TEST_F(CoreWorkerTest, AStoppedAttemptGoesOnFromItsCheckpoint) {
  const int64_t worker = Join("w");
  v1::FinishRequest stopped = FinishOf(worker, v1::FinishRequest::OUTCOME_STOPPED);
  stopped.set_last_step(40);
  v1::Output* checkpoint = stopped.add_outputs();
  checkpoint->set_name("checkpoint");
  checkpoint->add_files()->set_sha256("checkpoint sha");
  ASSERT_TRUE(Finish(stopped)->accepted());
  ASSERT_EQ(CellNow(worker), "s/prepare");
  EXPECT_EQ(SpecOf(worker).checkpoint_step(), 40);
  EXPECT_EQ(SpecOf(worker).checkpoint().files(0).sha256(), "checkpoint sha");
  // An older report does not replace it.
  v1::ReportCheckpointRequest older;
  older.set_run_id(orders_[worker].desired(0).run_id());
  older.set_attempt_id(orders_[worker].desired(0).attempt_id());
  older.set_generation(orders_[worker].desired(0).generation());
  older.set_step(30);
  older.mutable_checkpoint()->add_files()->set_sha256("older sha");
  EXPECT_TRUE(Call<v1::ReportCheckpointResponse>(&Core::ReportCheckpoint, older)->accepted());
  EXPECT_FALSE(*core_->NamesBlob("older sha"));
  EXPECT_TRUE(*core_->NamesBlob("checkpoint sha"));
}

TEST_F(CoreWorkerTest, TheSpecComesUntilTheWorkerHoldsTheLease) {
  const int64_t worker = Join("w");
  EXPECT_TRUE(orders_[worker].desired(0).has_spec());
  ASSERT_TRUE(Sync(worker).ok());
  EXPECT_FALSE(orders_[worker].desired(0).has_spec());
}

TEST_F(CoreWorkerTest, MessagesThatAreDoubledSayNothingNew) {
  const int64_t worker = Join("w");
  v1::SyncRequest old;
  old.set_worker_id(worker);
  old.set_worker_uuid(uuids_[worker]);
  old.set_number(1);
  old.set_acknowledged(~uint64_t{0});  // would give the lease up
  const auto response = Send(old);
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->desired_size(), 1);
}

TEST_F(CoreWorkerTest, ARestartedCoordinatorGivesLiveLeasesAFullTerm) {
  const int64_t worker = Join("w");
  const uint64_t before = orders_[worker].number();
  now_ms_ += options_.lease_ttl_ms - 1;
  Restart();
  now_ms_ += options_.lease_ttl_ms - 1;
  core_->Tick();
  ASSERT_TRUE(core_->CommitBatch().ok());
  EXPECT_EQ(CellOf("s/prepare").state(), v1::RUN_STATE_RUNNING);
  ASSERT_TRUE(Sync(worker).ok());
  EXPECT_GT(orders_[worker].number(), before);
  EXPECT_EQ(orders_[worker].desired_size(), 1);
}

TEST_F(CoreWorkerTest, ANewProcessUnderTheNameOfALostOneTakesOverAtOnce) {
  const int64_t first = Join("local");
  core_->Disconnected(first);
  ASSERT_TRUE(core_->CommitBatch().ok());
  const int64_t second = Join("local");
  EXPECT_NE(second, first);
  EXPECT_EQ(CellOf("s/prepare").waiting(), v1::WAIT_REASON_BACKOFF);  // lost without a step: like a crash
  now_ms_ += 10'000;
  core_->Tick();
  ASSERT_TRUE(core_->CommitBatch().ok());
  EXPECT_EQ(CellNow(second), "s/prepare");
  // The old process, should it live still, is told to register anew.
  EXPECT_TRUE(Sync(first)->reregister());
}

// A process was killed and started again before its old connection was seen to be broken.
TEST_F(CoreWorkerTest, ANewProcessOnTheDirectoryOfAnotherTakesOverThoughThatOneSeemsConnected) {
  const int64_t first = Join("local", 1, "directory");
  const int64_t same_name = Join("local", 1, "another directory");
  const int64_t another_host = Join("copy", 1, "directory", "another host");
  EXPECT_EQ(CellNow(first), "s/prepare");
  Restart();
  ASSERT_TRUE(Sync(first).ok());
  const int64_t second = Join("renamed", 1, "directory");
  EXPECT_EQ(CellOf("s/prepare").waiting(), v1::WAIT_REASON_BACKOFF);
  EXPECT_TRUE(Sync(first)->reregister());
  for (const int64_t other : {second, same_name, another_host}) EXPECT_FALSE(Sync(other)->reregister()) << other;
}

TEST_F(CoreWorkerTest, RegisteringAgainKeepsTheLeases) {
  const int64_t worker = Join("w");
  v1::RegisterRequest again;
  again.set_worker_uuid(uuids_[worker]);
  again.set_name("w");
  again.set_protocol_min(1);
  again.set_protocol_max(3);
  again.set_slots(1);
  again.add_trainers("builtin");
  EXPECT_EQ(Call<v1::RegisterResponse>(&Core::Register, again)->worker_id(), worker);
  ASSERT_TRUE(Sync(worker).ok());
  EXPECT_EQ(orders_[worker].desired_size(), 1);
}

TEST_F(CoreWorkerTest, AWorkerThatLeftMayComeBackUnderItsUuidEvenAfterARestart) {
  const int64_t worker = Join("w");
  v1::SyncRequest leave;
  leave.set_worker_id(worker);
  leave.set_worker_uuid(uuids_[worker]);
  leave.set_number(++numbers_[worker]);
  leave.set_leaving(true);
  ASSERT_TRUE(Call<v1::SyncResponse>(&Core::Sync, leave).ok());
  Restart();
  v1::RegisterRequest again;
  again.set_worker_uuid(uuids_[worker]);
  again.set_name("w");
  again.set_protocol_min(1);
  again.set_protocol_max(3);
  again.set_slots(1);
  again.add_trainers("builtin");
  const auto response = Call<v1::RegisterResponse>(&Core::Register, again);
  ASSERT_TRUE(response.ok()) << response.error().message;
  EXPECT_EQ(response->worker_id(), worker);
  ASSERT_TRUE(Sync(worker).ok());
  EXPECT_EQ(core_->ListWorkers().workers(0).state(), "connected");
}

TEST_F(CoreWorkerTest, StrangersAreRefused) {
  v1::RegisterRequest request;
  request.set_worker_uuid("u");
  request.set_protocol_min(4);
  request.set_protocol_max(5);
  EXPECT_EQ(Call<v1::RegisterResponse>(&Core::Register, request).error().code, ErrorCode::kFailedPrecondition);
  request.set_protocol_min(1);
  request.set_cluster_id("another cluster");
  EXPECT_THAT(Call<v1::RegisterResponse>(&Core::Register, request).error().message, HasSubstr("another cluster"));
  v1::SyncRequest sync;
  sync.set_worker_id(77);
  EXPECT_TRUE(Call<v1::SyncResponse>(&Core::Sync, sync)->reregister());
}

TEST_F(CoreWorkerTest, MetricsAndLogsOfItsOwnAttemptsAreKeptOnce) {
  const int64_t worker = Join("w"), stranger = Join("x");
  const int64_t attempt = orders_[worker].desired(0).attempt_id();
  for (int64_t sender : {worker, worker, stranger}) {
    v1::SyncRequest sync;
    sync.set_worker_id(sender);
    sync.set_worker_uuid(uuids_[sender]);
    sync.set_number(++numbers_[sender]);
    v1::MetricChunk* chunk = sync.add_metrics();
    chunk->set_attempt_id(attempt);
    chunk->set_sequence(sender == stranger ? 99 : 0);
    chunk->set_series("loss");
    chunk->add_steps(1);
    chunk->add_values(2.5);
    ASSERT_TRUE(Send(sync).ok());
  }
  auto db = store::Database::Open(folder_ / "allometry.db", {.read_only = true});
  auto count = (**db)("SELECT COUNT(*) FROM metrics");
  ASSERT_TRUE(count.Next());
  EXPECT_EQ(count.Int(0), 1);
}

TEST_F(CoreWorkerTest, CancellingStopsWhatRunsAndRefusesItsResult) {
  const int64_t worker = Join("w");
  v1::CancelRequest cancel;
  cancel.set_sweep("s");
  EXPECT_EQ(Call<v1::CancelResponse>(&Core::Cancel, cancel)->stopped(), 1);
  EXPECT_TRUE(orders_[worker].desired(0).stop());
  const auto finished = Finish(FinishOf(worker));
  EXPECT_FALSE(finished->accepted());
  EXPECT_THAT(finished->reason(), HasSubstr("cancelled"));
  EXPECT_EQ(CellOf("s/prepare").waiting(), v1::WAIT_REASON_CANCELLED);
  EXPECT_EQ(core_->Get("s")->state(), v1::SWEEP_STATE_CANCELLED);
  v1::SubmitRequest again = SubmitOf("s");
  again.set_request_uuid("again");
  ASSERT_TRUE(Submit(again, SmallSweep()).ok());
  EXPECT_EQ(core_->Get("s")->state(), v1::SWEEP_STATE_ACTIVE);
  EXPECT_EQ(CellNow(worker), "s/prepare");
}

TEST_F(CoreWorkerTest, RetryBringsBackWhatFailedAndExplainTellsWhatBlocks) {
  const int64_t worker = Join("w");
  v1::FinishRequest failed = FinishOf(worker, v1::FinishRequest::OUTCOME_DATA_ERROR);
  failed.set_message("no such\nfile");
  ASSERT_TRUE(Finish(failed).ok());
  EXPECT_EQ(core_->Get("s")->state(), v1::SWEEP_STATE_FINISHED);
  EXPECT_EQ(core_->Get("s")->blocked(), 2);
  v1::ExplainRequest explain;
  explain.set_cell("s/glu-ft");
  EXPECT_THAT(core_->Explain(explain)->text(), HasSubstr("s/prepare, which failed (no such file)"));
  v1::RetryRequest retry;
  retry.set_sweep("s");
  EXPECT_EQ(Call<v1::RetryResponse>(&Core::Retry, retry)->retried(), 1);
  EXPECT_EQ(core_->Get("s")->state(), v1::SWEEP_STATE_ACTIVE);
  EXPECT_EQ(CellNow(worker), "s/prepare");
  explain.set_cell("s/prepare");
  EXPECT_EQ(core_->Explain(explain)->attempts(0).outcome(), "data_error");
}

TEST_F(CoreWorkerTest, DrainingAndLeavingAreSeenInTheList) {
  const int64_t worker = Join("w");
  v1::DrainWorkerRequest drain;
  drain.set_worker("w");
  ASSERT_TRUE(Call<v1::DrainWorkerResponse>(&Core::DrainWorker, drain).ok());
  EXPECT_TRUE(orders_[worker].drain());
  EXPECT_EQ(core_->ListWorkers().workers(0).state(), "draining");
  drain.set_worker("nobody");
  EXPECT_EQ(Call<v1::DrainWorkerResponse>(&Core::DrainWorker, drain).error().code, ErrorCode::kNotFound);
  v1::SyncRequest leave;
  leave.set_worker_id(worker);
  leave.set_worker_uuid(uuids_[worker]);
  leave.set_number(++numbers_[worker]);
  leave.set_leaving(true);
  ASSERT_TRUE(Call<v1::SyncResponse>(&Core::Sync, leave).ok());
  EXPECT_EQ(core_->ListWorkers().workers_size(), 0);
  EXPECT_EQ(CellOf("s/prepare").state(), v1::RUN_STATE_PENDING);
}

TEST_F(CoreWorkerTest, TheNewestAttemptsLogsAreFound) {
  EXPECT_EQ(core_->FindAttempt("s/glu", 0).error().code, ErrorCode::kNotFound);
  Join("w");
  EXPECT_TRUE(core_->FindAttempt("s/prepare", 0)->live);
  EXPECT_EQ(core_->FindAttempt("prepare", 0).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace allometry::coordinator
