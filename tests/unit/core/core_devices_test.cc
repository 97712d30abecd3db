#include "coordinator/store/database.h"
#include "tests/unit/core/core_fixture.h"

// GPUs from the worker's registration to its orders: parts of them, memory, and devices out of service.
namespace allometry::coordinator {
namespace {

using ::testing::HasSubstr;

class CoreDevicesTest : public CoreFixture {
 protected:
  int64_t JoinWithGpus(const std::string& name, const std::vector<std::string>& models, int64_t memory_bytes = 80'000) {
    v1::RegisterRequest request;
    request.set_worker_uuid("worker " + name);
    request.set_name(name);
    request.set_protocol_min(3);
    request.set_protocol_max(3);
    request.set_slots(static_cast<int32_t>(models.size()));
    for (size_t i = 0; i < models.size(); ++i) {
      request.add_devices("cuda:" + std::to_string(i) + " " + models[i]);
      request.add_device_memory_bytes(memory_bytes);
    }
    request.add_trainers("builtin");
    const auto response = Call<v1::RegisterResponse>(&Core::Register, request);
    EXPECT_TRUE(response.ok());
    uuids_[response->worker_id()] = request.worker_uuid();
    EXPECT_TRUE(Sync(response->worker_id()).ok());
    return response->worker_id();
  }
  static std::vector<Cell> Cells(int count, int64_t slots_per_gpu, int64_t gpu_bytes = 0) {
    std::vector<Cell> cells;
    for (int i = 0; i < count; ++i) {
      cells.push_back(NewCell("c" + std::to_string(i), v1::RUN_KIND_PRETRAIN, 1000 + i));
      cells.back().slots_per_gpu = slots_per_gpu;
      cells.back().costs.set_gpu_whole_bytes(gpu_bytes);
    }
    return cells;
  }
  common::Result<v1::SyncResponse> SyncWithFault(int64_t worker, const std::string& reason, int device = 0) {
    v1::SyncRequest request;
    request.set_worker_id(worker);
    request.set_worker_uuid(uuids_[worker]);
    request.set_number(++numbers_[worker]);
    request.set_acknowledged(orders_[worker].number());
    v1::DeviceFault* fault = request.add_faults();
    fault->set_device(device);
    fault->set_reason(reason);
    return Send(request);
  }
  std::string Text(const std::string& cell) {
    v1::ExplainRequest request;
    request.set_cell(cell);
    return core_->Explain(request)->text();
  }
};

TEST_F(CoreDevicesTest, PartsOfADeviceAreGivenOutAndOutliveARestart) {
  const int64_t worker = JoinWithGpus("w", {"H100"});
  ASSERT_TRUE(Submit(SubmitOf("s"), Cells(3, 2)).ok());
  ASSERT_TRUE(Sync(worker).ok());
  ASSERT_EQ(orders_[worker].desired_size(), 2);
  for (const v1::Assignment& assignment : orders_[worker].desired()) {
    EXPECT_TRUE(assignment.has_device());
    EXPECT_EQ(assignment.device(), 0);
    EXPECT_EQ(assignment.device_parts(), 8);
  }
  Restart();
  ASSERT_TRUE(Sync(worker).ok());
  EXPECT_EQ(orders_[worker].desired_size(), 2) << "nothing is free";
  EXPECT_EQ(orders_[worker].desired(1).device_parts(), 8);
  ASSERT_TRUE(Finish(FinishOf(worker)).ok());
  ASSERT_TRUE(Sync(worker).ok());
  EXPECT_EQ(orders_[worker].desired_size(), 2) << "the third has what the first had";
}

TEST_F(CoreDevicesTest, TheMemoryOfAGpuDecidesAndNotTheMachines) {
  ASSERT_TRUE(Submit(SubmitOf("s"), Cells(1, 1, 50'000)).ok());
  const int64_t small = JoinWithGpus("small", {"H100"});
  ASSERT_TRUE(Sync(small).ok());
  EXPECT_EQ(orders_[small].desired_size(), 0);
  EXPECT_THAT(Text("s/c0"), HasSubstr("(of a GPU: 100k bytes)"));
  Restart();
  ASSERT_TRUE(Sync(small).ok());
  EXPECT_EQ(orders_[small].desired_size(), 0) << "known after a restart too";
  const int64_t large = JoinWithGpus("large", {"H200"}, 140'000);
  ASSERT_TRUE(Sync(large).ok());
  EXPECT_EQ(orders_[large].desired_size(), 1);
}

TEST_F(CoreDevicesTest, ALostDeviceGetsNothingUntilItsWorkerFindsItWhole) {
  const int64_t worker = JoinWithGpus("w", {"H100"});
  ASSERT_TRUE(Submit(SubmitOf("s"), Cells(1, 1)).ok());
  ASSERT_TRUE(Sync(worker).ok());
  v1::FinishRequest finish = FinishOf(worker, v1::FinishRequest::OUTCOME_DEVICE_LOST);
  finish.set_message("exit code 47: the GPU failed");
  ASSERT_TRUE(Finish(finish)->accepted());
  EXPECT_EQ(CellOf("s/c0").state(), v1::RUN_STATE_PENDING);
  now_ms_ += 60'000;
  core_->Tick();  // its pause is over
  ASSERT_TRUE(SyncWithFault(worker, "device_lost: Xid 79").ok());
  EXPECT_EQ(orders_[worker].desired_size(), 0);
  EXPECT_THAT(Text("s/c0"), HasSubstr("Out of service: w device 0: device_lost: Xid 79"));
  EXPECT_EQ(core_->ListWorkers().workers(0).faults(0), "cuda:0 H100: device_lost: Xid 79");
  ASSERT_TRUE(Sync(worker).ok());
  ASSERT_TRUE(Sync(worker).ok());
  EXPECT_EQ(orders_[worker].desired_size(), 1);
  EXPECT_EQ(core_->ListWorkers().workers(0).faults_size(), 0);
}

TEST_F(CoreDevicesTest, DeviceSecondsOfASharedDeviceAreItsPart) {
  const int64_t worker = JoinWithGpus("w", {"H100"});
  ASSERT_TRUE(Submit(SubmitOf("s"), Cells(2, 4)).ok());
  ASSERT_TRUE(Sync(worker).ok());
  v1::FinishRequest finish = FinishOf(worker);
  finish.set_device_seconds(100);
  finish.set_last_step(100);
  ASSERT_TRUE(Finish(finish)->accepted());
  // 1,000 FLOPs in 100 s of a quarter: the whole device would do 40 a second.
  EXPECT_NEAR(core_->Plan(Cells(2, 4))->expected_seconds(), 1'001 / 40.0, 1e-9);
}

TEST_F(CoreDevicesTest, TheSameFileAgainRefreshesWhatAnOlderDatabaseDoesNotKnow) {
  ASSERT_TRUE(Submit(SubmitOf("s"), Cells(2, 1)).ok());
  v1::SubmitRequest again = SubmitOf("s");
  again.set_request_uuid("another");
  ASSERT_TRUE(Submit(again, Cells(2, 2, 20'000)).ok());
  Restart();
  const int64_t small = JoinWithGpus("small", {"H100"}, 39'000);
  ASSERT_TRUE(Sync(small).ok());
  EXPECT_EQ(orders_[small].desired_size(), 0);
  const int64_t worker = JoinWithGpus("w", {"H100"}, 80'000'000'000);
  ASSERT_TRUE(Sync(worker).ok());
  ASSERT_EQ(orders_[worker].desired_size(), 2);
  EXPECT_EQ(orders_[worker].desired(0).device_parts(), 8);
}

TEST_F(CoreDevicesTest, AWorkerOfAnOlderProtocolHasToRegisterAgainAfterAnUpgrade) {
  const int64_t worker = JoinWithGpus("w", {"H100"});
  Restart();
  EXPECT_FALSE(Sync(worker)->reregister()) << "it is kept what it speaks";
  core_.reset();
  {
    const auto database = store::Database::Open(folder_ / "allometry.db", {});
    ASSERT_TRUE(database.ok());
    (**database)("UPDATE workers SET protocol = 2").Run();
  }
  Restart();
  EXPECT_TRUE(Sync(worker)->reregister());
}

TEST_F(CoreDevicesTest, WhatARegistrationSaysOfDevicesIsBroughtIntoItsRange) {
  ASSERT_TRUE(Submit(SubmitOf("s"), Cells(1, 1, 50'000)).ok());
  const int64_t worker = JoinWithGpus("w", {"H100"}, -1);
  ASSERT_TRUE(Sync(worker).ok());
  EXPECT_EQ(orders_[worker].desired_size(), 1) << "not known";
  JoinWithGpus("many", std::vector<std::string>(5'000, "H100"));
  EXPECT_EQ(core_->ListWorkers().workers(1).devices_size(), 4'096);
  EXPECT_EQ(core_->ListWorkers().workers(1).slots(), 4'096);
}

TEST_F(CoreDevicesTest, ASharedDeviceIsOneBusySlotAndOneOutOfServiceIsNotFree) {
  const int64_t worker = JoinWithGpus("w", {"H100", "H100", "H100"});
  ASSERT_TRUE(SyncWithFault(worker, "device_lost: Xid 79", 1).ok());
  ASSERT_TRUE(Submit(SubmitOf("s"), Cells(3, 4)).ok());
  ASSERT_EQ(orders_[worker].desired_size(), 3);
  EXPECT_EQ(core_->ListWorkers().workers(0).busy(), 1);
  EXPECT_EQ(core_->Status().slots(), 3);
  EXPECT_EQ(core_->Status().free_slots(), 1);
  ASSERT_TRUE(Sync(worker).ok());
  EXPECT_EQ(core_->ListWorkers().workers(0).busy(), 1);
  EXPECT_EQ(core_->Status().free_slots(), 2);
}

TEST_F(CoreDevicesTest, WhoWaitsIsToldWhatOfAGpuItNeeds) {
  std::vector<Cell> cells = Cells(4, 2);
  cells[3].devices = cells[3].most_devices = 2;
  cells[3].slots_per_gpu = 1;
  cells[3].costs.set_gpu_whole_bytes(30'000);
  cells[3].costs.set_gpu_divided_bytes(40'000);
  ASSERT_TRUE(Submit(SubmitOf("s"), cells).ok());
  ASSERT_TRUE(Sync(JoinWithGpus("w", {"H100"})).ok());
  EXPECT_THAT(Text("s/c2"), HasSubstr("waits for a free slot, of a GPU for 1/2 that is free"));
  EXPECT_THAT(Text("s/c3"), HasSubstr("of memory each (of a GPU: 100k bytes), and of workers"));
}

TEST_F(CoreDevicesTest, MixedDevicesAreNamedWhereAGangWaits) {
  std::vector<Cell> cells = Cells(1, 1);
  cells[0].devices = cells[0].most_devices = 2;
  ASSERT_TRUE(Submit(SubmitOf("s"), cells).ok());
  JoinWithGpus("mixed", {"H100", "A100"});
  EXPECT_THAT(Text("s/c0"), HasSubstr("those of mixed are of several: start a worker for each kind"));
}

TEST_F(CoreDevicesTest, SharesThatWereAskedForAreContentAndThosePlannedAreNot) {
  ASSERT_TRUE(Submit(SubmitOf("s"), Cells(1, 2)).ok());
  v1::SubmitRequest again = SubmitOf("s");
  again.set_request_uuid("another");
  EXPECT_TRUE(Submit(again, Cells(1, 4)).ok()) << "another planner";
  again.set_request_uuid("a third");
  again.mutable_spec()->set_slots_per_gpu("4");
  EXPECT_EQ(Submit(again, Cells(1, 4)).error().code, common::ErrorCode::kAlreadyExists);
}

}  // namespace
}  // namespace allometry::coordinator
