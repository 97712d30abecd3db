#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "coordinator/core/core.h"

namespace allometry::coordinator {

// A Core on a database file of its own, a clock that the test turns, an outbox that remembers.
class CoreFixture : public ::testing::Test, public Outbox {
 protected:
  CoreFixture() {
    std::string name = (std::filesystem::temp_directory_path() / "allometry_core_XXXXXX").string();
    folder_ = mkdtemp(name.data());
    Restart();
  }
  ~CoreFixture() override {
    core_.reset();
    std::filesystem::remove_all(folder_);
  }

  void SendOrders(int64_t worker_id, v1::SyncResponse response) override { orders_[worker_id] = std::move(response); }
  void WatchReady(int64_t watch_id) override { ready_.insert(watch_id); }

  void Restart() {
    core_.reset();
    store::Store::Options options;
    options.durable = false;
    options.fail_commit = [this] { return disk_full_; };
    auto store = store::Store::Open(folder_ / "allometry.db", options);
    ASSERT_TRUE(store.ok()) << store.error().message;
    CoreOptions core_options = options_;
    core_options.now_boot_ms = [this] { return now_ms_; };
    core_options.now_unix_ms = [this] { return 1'700'000'000'000 + now_ms_; };
    core_options.has_blob = [this](const std::string& sha256) { return !missing_.contains(sha256); };
    auto core = Core::Open(std::move(store).value(), core_options, this);
    ASSERT_TRUE(core.ok()) << core.error().message;
    core_ = std::move(core).value();
  }

  // Queues what `enqueue` queues with the reply it is given, commits, gives the reply.
  template <typename Response, typename Enqueue>
  common::Result<Response> Ask(Enqueue enqueue) {
    std::optional<common::Result<Response>> reply;
    enqueue([&](common::Result<Response> r) { reply.emplace(std::move(r)); });
    for (int i = 0; i < 1'000 && core_->HasQueued(); ++i) (void)core_->CommitBatch();
    EXPECT_TRUE(reply.has_value());
    return std::move(*reply);
  }

  template <typename Response, typename Request>
  common::Result<Response> Call(void (Core::*method)(Request, Reply<Response>), Request request) {
    return Ask<Response>([&](Reply<Response> reply) { (core_.get()->*method)(std::move(request), std::move(reply)); });
  }

  static Cell NewCell(const std::string& name, v1::RunKind kind, double flops, std::vector<CellParent> parents = {}) {
    Cell cell;
    cell.name = name;
    cell.kind = kind;
    cell.architecture = kind == v1::RUN_KIND_PREPARE ? "" : name.substr(0, name.find('-'));
    cell.size = "nano";
    cell.seed = 1;
    cell.trainer = "builtin";
    cell.precision = "auto";
    cell.identity = "identity of " + name;
    cell.run_json = R"({"batch_sequences":16,"name":")" + name + "\"}";
    cell.parents = std::move(parents);
    cell.costs.set_training_flops(flops);
    cell.costs.set_steps(100);
    cell.costs.set_forward_flops(1234);
    return cell;
  }

  // prepare, glu (pretrain), glu-ft (finetune on both).
  static std::vector<Cell> SmallSweep() {
    std::vector<Cell> cells{NewCell("prepare", v1::RUN_KIND_PREPARE, 0)};
    cells.push_back(NewCell("glu", v1::RUN_KIND_PRETRAIN, 1000, {{"data", cells[0].identity}}));
    cells.push_back(
        NewCell("glu-ft", v1::RUN_KIND_FINETUNE, 10, {{"data", cells[0].identity}, {"model", cells[1].identity}}));
    return cells;
  }

  static v1::SubmitRequest SubmitOf(const std::string& name) {
    v1::SubmitRequest request;
    request.mutable_spec()->set_name(name);
    request.set_request_uuid("uuid of " + name);
    return request;
  }

  common::Result<v1::SubmitResponse> Submit(v1::SubmitRequest request, std::vector<Cell> cells) {
    return Ask<v1::SubmitResponse>([&](Reply<v1::SubmitResponse> reply) {
      core_->Submit(std::move(request), std::move(cells), std::move(reply));
    });
  }

  // Registers and syncs once.
  int64_t Join(const std::string& name, int slots = 1, const std::string& directory = "",
               const std::string& host = "host") {
    v1::RegisterRequest request;
    request.set_worker_uuid("worker " + name + std::to_string(++joined_));
    request.set_name(name);
    request.set_host(host);
    request.set_directory_uuid(directory);
    request.set_protocol_min(1);
    request.set_protocol_max(3);
    request.set_slots(slots);
    request.add_trainers("builtin");
    const auto response = Call<v1::RegisterResponse>(&Core::Register, request);
    EXPECT_TRUE(response.ok());
    uuids_[response->worker_id()] = request.worker_uuid();
    EXPECT_TRUE(Sync(response->worker_id()).ok());
    return response->worker_id();
  }

  // A sync that holds what the newest orders say, at `step`.
  common::Result<v1::SyncResponse> Sync(int64_t worker_id, int64_t step = 0, const std::string& precision = "") {
    v1::SyncRequest request;
    request.set_worker_id(worker_id);
    request.set_worker_uuid(uuids_[worker_id]);
    request.set_number(++numbers_[worker_id]);
    request.set_acknowledged(orders_[worker_id].number());
    for (const v1::Assignment& assignment : orders_[worker_id].desired()) {
      v1::HeldLease* held = request.add_held();
      held->set_run_id(assignment.run_id());
      held->set_attempt_id(assignment.attempt_id());
      held->set_generation(assignment.generation());
      held->set_rank(assignment.rank());
      if (assignment.rank() == 0) held->set_rendezvous(rendezvous_);
      held->set_step(step);
      held->set_precision(precision);
    }
    return Send(request);
  }

  common::Result<v1::SyncResponse> Send(const v1::SyncRequest& request) {
    auto response = Call<v1::SyncResponse>(&Core::Sync, request);
    if (response) orders_[request.worker_id()] = *response;
    return response;
  }

  v1::FinishRequest FinishOf(int64_t worker_id, v1::FinishRequest::Outcome outcome = v1::FinishRequest::OUTCOME_DONE) {
    const v1::Assignment& assignment = orders_.at(worker_id).desired(0);
    v1::FinishRequest request;
    request.set_worker_id(worker_id);
    request.set_run_id(assignment.run_id());
    request.set_attempt_id(assignment.attempt_id());
    request.set_generation(assignment.generation());
    request.set_rank(assignment.rank());
    request.set_outcome(outcome);
    if (outcome != v1::FinishRequest::OUTCOME_DONE) return request;
    request.set_result_json(
        R"({"metrics":{"validation_loss":2.5},"scores":[{"task":"wic","value":0.5}],"outputs":{}})");
    for (const char* name : {"data", "model"}) {
      v1::Output* output = request.add_outputs();
      output->set_name(name);
      v1::BlobFile* file = output->add_files();
      file->set_path(std::string(name) + ".bin");
      file->set_sha256("sha of " + std::string(name) + std::to_string(assignment.run_id()));
      file->set_bytes(3);
    }
    return request;
  }

  common::Result<v1::FinishResponse> Finish(const v1::FinishRequest& request) {
    return Call<v1::FinishResponse>(&Core::Finish, request);
  }

  v1::CellStatus CellOf(const std::string& cell) {
    v1::ExplainRequest request;
    request.set_cell(cell);
    auto response = core_->Explain(request);
    EXPECT_TRUE(response.ok()) << response.error().message;
    return response.ok() ? response->cell() : v1::CellStatus();
  }

  std::filesystem::path folder_;
  CoreOptions options_;
  std::unique_ptr<Core> core_;
  int64_t now_ms_ = 5'000;
  bool disk_full_ = false;
  std::set<std::string> missing_;
  std::map<int64_t, v1::SyncResponse> orders_;
  std::map<int64_t, std::string> uuids_;
  std::map<int64_t, uint64_t> numbers_;
  std::set<int64_t> ready_;
  std::string rendezvous_;  // that rank 0 tells in its syncs
  int joined_ = 0;
};

}  // namespace allometry::coordinator
