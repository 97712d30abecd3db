#include "coordinator/server/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <cmath>
#include <fstream>
#include <thread>

#include "common/files.h"
#include "common/grpc_status.h"
#include "common/json.h"
#include "records/sqlite.h"
#include "tests/unit/rpc/client.h"

namespace allometry::coordinator {
namespace {

namespace fs = std::filesystem;
using common::ErrorCode;
using common::Json;
using grpc::StatusCode;
using testing::HasSubstr;

class ServerTest : public testing::Test {
 protected:
  void SetUp() override { StartServer(); }

  CoordinatorOptions Options() {
    CoordinatorOptions options;
    options.data_dir = folder_.path() / "data";
    return options;
  }
  void StartServer() { StartServer(Options()); }
  void StartServer(const CoordinatorOptions& options) {
    auto server = CoordinatorServer::Start(options);
    ASSERT_TRUE(server.ok()) << server.error().message;
    server_ = std::move(server).value();
    stubs_ = std::make_unique<Stubs>(server_->address());
  }
  void Restart() {
    server_.reset();
    StartServer();
  }

  grpc::Status Submit(const v1::SubmitRequest& request, v1::SubmitResponse* response = nullptr) {
    Context context;
    v1::SubmitResponse ignored;
    return stubs_->sweeps->Submit(&context, request, response ? response : &ignored);
  }
  v1::Sweep Get(const std::string& name) {
    Context context;
    v1::GetSweepRequest request;
    request.set_name(name);
    v1::Sweep sweep;
    const auto status = stubs_->sweeps->Get(&context, request, &sweep);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return sweep;
  }

  // Works until nothing is held any more; the loss falls by half a nat a decade of FLOPs.
  static void Work(ToyWorker* worker) {
    ASSERT_TRUE(worker->status().ok()) << worker->status().error_message();
    worker->OpenSync();
    ASSERT_TRUE(worker->Send());
    ASSERT_TRUE(worker->ReceiveAnswer());
    while (!worker->held().empty()) {
      const v1::HeldLease held = worker->held().begin()->second;
      const Json run = Json::parse(worker->spec(held.attempt_id()).run_json());
      const double flops = std::pow(10.0, 3 + run["model"]["options"]["order"].get<double>());
      // Seeds differ as seeds do; with two of them the means stay on the line.
      const double loss = 6 - 0.5 * std::log10(flops) + (run["seed"] == 0 ? 0.01 : -0.01);
      const Json result = {{"event", "result"},
                           {"metrics", {{"validation_loss", loss}, {"forward_flops", flops}, {"parameters", flops}}},
                           {"scores", Json::array()}};
      v1::FinishResponse response;
      const auto status = worker->Finish(worker->FinishOf(held, result.dump()), &response);
      ASSERT_TRUE(status.ok()) << status.error_message();
      ASSERT_TRUE(response.accepted()) << response.reason();
      worker->Drop(held.attempt_id());
      ASSERT_TRUE(worker->Send());
      ASSERT_TRUE(worker->ReceiveAnswer());
    }
    EXPECT_TRUE(worker->EndSync().ok());
  }

  TemporaryFolder folder_;
  std::unique_ptr<CoordinatorServer> server_;
  std::unique_ptr<Stubs> stubs_;
};

// ---- Start and stop ----

TEST_F(ServerTest, LeavesAnEndpointWhileItRuns) {
  auto endpoint = ReadEndpoint(server_->data_dir());
  ASSERT_TRUE(endpoint.ok()) << endpoint.error().message;
  EXPECT_EQ(endpoint->address, server_->address());
  EXPECT_EQ(endpoint->pid, ::getpid());
  EXPECT_EQ(endpoint->cluster_id, server_->cluster_id());
  EXPECT_FALSE(endpoint->tls);
  const std::string cluster_id = server_->cluster_id();
  server_->Stop();
  EXPECT_FALSE(ReadEndpoint(server_->data_dir()).ok());
  Restart();
  EXPECT_EQ(server_->cluster_id(), cluster_id) << "the cluster is the database's, not the process's";
}

TEST_F(ServerTest, RefusesASecondOneOnItsDirectory) {
  auto second = CoordinatorServer::Start(Options());
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::kFailedPrecondition);
  EXPECT_THAT(second.error().message, HasSubstr(server_->address()));
  EXPECT_TRUE(ReadEndpoint(server_->data_dir()).ok()) << "the first one's endpoint must stay";
}

TEST_F(ServerTest, RefusesAPortInUse) {
  CoordinatorOptions options = Options();
  options.data_dir = folder_.path() / "other";
  options.listen.address = server_->address();
  auto second = CoordinatorServer::Start(options);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::kFailedPrecondition);
  EXPECT_THAT(second.error().message, HasSubstr("in use"));
  EXPECT_FALSE(ReadEndpoint(options.data_dir).ok());
}

TEST_F(ServerTest, RefusesANewerDatabase) {
  server_.reset();
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open((folder_.path() / "data/allometry.db").c_str(), &db), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(db, "PRAGMA user_version = 999", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(db);
  auto server = CoordinatorServer::Start(Options());
  ASSERT_FALSE(server.ok());
  EXPECT_EQ(server.error().code, ErrorCode::kFailedPrecondition);
}

TEST_F(ServerTest, StopEndsStreamsAndCanBeCalledAgain) {
  ASSERT_TRUE(Submit(ToySweep("s", 1, 1)).ok());
  ToyWorker worker(server_->address(), "w", 1);
  worker.OpenSync();
  ASSERT_TRUE(worker.Send());
  ASSERT_TRUE(worker.ReceiveAnswer());
  Context context;
  v1::WatchRequest request;
  request.set_sweep("s");
  auto watch = stubs_->sweeps->Watch(&context, request);
  v1::WatchEvent event;
  ASSERT_TRUE(watch->Read(&event));
  std::thread waiter([&] { server_->Wait(); });
  server_->Stop();
  server_->Stop();
  waiter.join();
  while (watch->Read(&event)) {
  }
  EXPECT_EQ(watch->Finish().error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(worker.FinishSync().error_code(), StatusCode::UNAVAILABLE);
}

// ---- Sweeps ----

TEST_F(ServerTest, PlansWithoutChangingAnything) {
  const auto submit = ToySweep("s", 2, 3);
  v1::PlanRequest request;
  *request.mutable_spec() = submit.spec();
  *request.mutable_manifest() = submit.manifest();
  Context context;
  v1::PlanResponse plan;
  ASSERT_TRUE(stubs_->sweeps->Plan(&context, request, &plan).ok());
  EXPECT_EQ(plan.cells_size(), 6);
  Context list_context;
  v1::ListResponse list;
  ASSERT_TRUE(stubs_->sweeps->List(&list_context, {}, &list).ok());
  EXPECT_EQ(list.sweeps_size(), 0);
}

TEST_F(ServerTest, ErrorsKeepTheirCodeAndSayWhatToDo) {
  auto bad = ToySweep("s", 1, 1);
  bad.mutable_spec()->mutable_pretraining()->clear_steps();
  auto status = Submit(bad);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("steps"));
  v1::GetSweepRequest unknown;
  unknown.set_name("nobody");
  v1::Sweep sweep;
  Context get;
  EXPECT_EQ(stubs_->sweeps->Get(&get, unknown, &sweep).error_code(), StatusCode::NOT_FOUND);
  ASSERT_TRUE(Submit(ToySweep("s", 1, 1)).ok());
  auto changed = ToySweep("s", 2, 1);
  changed.set_request_uuid("another");
  EXPECT_EQ(Submit(changed).error_code(), StatusCode::ALREADY_EXISTS);
  v1::ExplainRequest explain;
  explain.set_cell("s/none");
  v1::ExplainResponse explained;
  Context context;
  EXPECT_EQ(stubs_->sweeps->Explain(&context, explain, &explained).error_code(), StatusCode::NOT_FOUND);
}

TEST_F(ServerTest, AWholeSweepFromSubmitToSlopes) {
  v1::SubmitResponse submitted;
  ASSERT_TRUE(Submit(ToySweep("study", 3, 2), &submitted).ok());
  EXPECT_EQ(submitted.new_runs(), 6);
  ToyWorker worker(server_->address(), "w", 2);
  Work(&worker);
  const v1::Sweep sweep = Get("study");
  EXPECT_EQ(sweep.done(), 6);
  EXPECT_EQ(sweep.state(), v1::SWEEP_STATE_FINISHED);

  v1::SlopesRequest slopes_request;
  slopes_request.add_sweeps("study");
  v1::SlopesResponse slopes;
  Context slopes_context;
  auto status = stubs_->analysis->Slopes(&slopes_context, slopes_request, &slopes);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(slopes.architectures_size(), 1);
  const v1::Slope& first = slopes.architectures(0).slopes(0);
  EXPECT_EQ(first.x() + "->" + first.y(), "flops->upstream");
  ASSERT_TRUE(first.known()) << first.refused();
  EXPECT_NEAR(first.alpha(), 0.5, 1e-9) << "half a nat a decade was put in";
  EXPECT_EQ(first.sizes(), 3);
  EXPECT_TRUE(Json::parse(slopes.json()).is_object());

  v1::ParetoRequest pareto_request;
  pareto_request.add_sweeps("study");
  v1::ParetoResponse pareto;
  Context pareto_context;
  status = stubs_->analysis->Pareto(&pareto_context, pareto_request, &pareto);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(pareto.points_size(), 3);
  for (const auto& point : pareto.points()) EXPECT_TRUE(point.on_frontier()) << "dearer cells are better here";

  v1::SlopesRequest unknown;
  unknown.add_sweeps("nobody");
  Context unknown_context;
  EXPECT_EQ(stubs_->analysis->Slopes(&unknown_context, unknown, &slopes).error_code(), StatusCode::NOT_FOUND);
}

TEST_F(ServerTest, ExportsFinishedCellsOnly) {
  ASSERT_TRUE(Submit(ToySweep("done", 2, 1)).ok());
  ToyWorker worker(server_->address(), "w", 2);
  Work(&worker);
  auto other = ToySweep("waiting", 5, 1);
  ASSERT_TRUE(Submit(other).ok());
  Context context;
  auto stream = stubs_->sweeps->Export(&context, {});
  std::vector<Json> rows;
  v1::ExportRow row;
  while (stream->Read(&row)) rows.push_back(Json::parse(row.json()));
  ASSERT_TRUE(stream->Finish().ok());
  // Cells n1 and n2 of "waiting" are the same runs, so they are done there too.
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[0]["sweep"], "done");
  EXPECT_EQ(rows[0]["cell"], "toy-n1-s0");
  EXPECT_NEAR(rows[0]["validation_loss"].get<double>(), 4.01, 1e-12);
  v1::ExportRequest unknown;
  unknown.set_sweep("nobody");
  Context unknown_context;
  EXPECT_EQ(stubs_->sweeps->Export(&unknown_context, unknown)->Finish().error_code(), StatusCode::NOT_FOUND);
}

TEST_F(ServerTest, WatchTellsEveryCellAndThenTheirChanges) {
  ASSERT_TRUE(Submit(ToySweep("s", 2, 2)).ok());
  Context context;
  v1::WatchRequest request;
  request.set_sweep("s");
  auto watch = stubs_->sweeps->Watch(&context, request);
  std::map<std::string, v1::RunState> states;
  v1::WatchEvent event;
  ASSERT_TRUE(watch->Read(&event));
  for (const auto& cell : event.cells()) states[cell.cell()] = cell.state();
  EXPECT_EQ(states.size(), 4u);
  EXPECT_GT(event.token(), 0);
  const int64_t token = event.token();
  ToyWorker worker(server_->address(), "w", 1);
  std::thread work([&] { Work(&worker); });
  while (event.sweep().state() != v1::SWEEP_STATE_FINISHED && watch->Read(&event)) {
    EXPECT_GE(event.token(), token);
    for (const auto& cell : event.cells()) states[cell.cell()] = cell.state();
  }
  work.join();
  EXPECT_EQ(event.sweep().done(), 4);
  for (const auto& [cell, state] : states) EXPECT_EQ(state, v1::RUN_STATE_DONE) << cell;
  context.context.TryCancel();

  // Whoever comes back with the old token hears what has happened since.
  Context later_context;
  request.set_token(token);
  auto later = stubs_->sweeps->Watch(&later_context, request);
  ASSERT_TRUE(later->Read(&event));
  EXPECT_EQ(event.cells_size(), 4);
  later_context.context.TryCancel();
}

TEST_F(ServerTest, WatchRefusesWhatItCannotTell) {
  ASSERT_TRUE(Submit(ToySweep("s", 1, 1)).ok());
  v1::WatchRequest request;
  request.set_sweep("nobody");
  v1::WatchEvent event;
  Context unknown;
  EXPECT_EQ(stubs_->sweeps->Watch(&unknown, request)->Finish().error_code(), StatusCode::NOT_FOUND);
  request.set_sweep("s");
  request.set_token(1'000'000'000);
  Context expired;
  EXPECT_EQ(stubs_->sweeps->Watch(&expired, request)->Finish().error_code(), StatusCode::OUT_OF_RANGE);
}

TEST_F(ServerTest, KeepsEverythingOverARestart) {
  ASSERT_TRUE(Submit(ToySweep("s", 2, 2)).ok());
  {
    ToyWorker worker(server_->address(), "w", 4);
    worker.OpenSync();
    ASSERT_TRUE(worker.Send());
    ASSERT_TRUE(worker.ReceiveAnswer());
    ASSERT_EQ(worker.held().size(), 4u);
    v1::FinishResponse response;
    ASSERT_TRUE(
        worker.Finish(worker.FinishOf(worker.held().begin()->second, R"({"metrics":{"validation_loss":1}})"), &response)
            .ok());
    ASSERT_TRUE(response.accepted());
    server_->Stop();
    EXPECT_FALSE(worker.FinishSync().ok());
  }
  Restart();
  const v1::Sweep sweep = Get("s");
  EXPECT_EQ(sweep.done(), 1);
  EXPECT_EQ(sweep.running(), 3) << "leases live on through a restart";
  v1::SubmitResponse again;
  ASSERT_TRUE(Submit(ToySweep("s", 2, 2), &again).ok());
  EXPECT_EQ(again.new_runs(), 0);
}

// ---- Workers ----

TEST_F(ServerTest, AnUnknownWorkerIsToldToRegister) {
  Context context;
  auto stream = stubs_->workers->Sync(&context.context);
  v1::SyncRequest request;
  request.set_worker_id(77);
  request.set_worker_uuid("x");
  request.set_number(1);
  v1::SyncResponse response;
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_TRUE(response.reregister());
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(ServerTest, ASecondStreamOfAWorkerReplacesTheFirst) {
  ToyWorker worker(server_->address(), "w", 1);
  worker.OpenSync();
  ASSERT_TRUE(worker.Send());
  ASSERT_TRUE(worker.ReceiveAnswer());
  Context context;
  auto second = stubs_->workers->Sync(&context.context);
  v1::SyncRequest request;
  request.set_worker_id(worker.registered().worker_id());
  request.set_worker_uuid("uuid-of-w");
  request.set_number(2);
  v1::SyncResponse response;
  ASSERT_TRUE(second->Write(request));
  ASSERT_TRUE(second->Read(&response));
  EXPECT_FALSE(response.reregister());
  EXPECT_EQ(worker.FinishSync().error_code(), StatusCode::ABORTED);
  // The end of the old stream must not make the coordinator forget the new one.
  request.set_number(3);
  ASSERT_TRUE(second->Write(request));
  ASSERT_TRUE(second->Read(&response));
  ASSERT_TRUE(Submit(ToySweep("s", 1, 1)).ok());
  while (response.desired_size() == 0) ASSERT_TRUE(second->Read(&response));
  second->WritesDone();
  EXPECT_TRUE(second->Finish().ok());
}

TEST_F(ServerTest, OrdersComeWithoutBeingAskedFor) {
  ToyWorker worker(server_->address(), "w", 3);
  worker.OpenSync();
  ASSERT_TRUE(worker.Send());
  ASSERT_TRUE(worker.ReceiveAnswer());
  ASSERT_TRUE(worker.held().empty());
  ASSERT_TRUE(Submit(ToySweep("s", 3, 1)).ok());
  while (worker.held().size() < 3) ASSERT_TRUE(worker.Receive());
  for (const auto& [attempt, held] : worker.held()) {
    EXPECT_EQ(worker.spec(attempt).trainer(), "toy");
    EXPECT_EQ(worker.spec(attempt).files_size(), 1);
  }
  EXPECT_TRUE(worker.EndSync().ok());
}

TEST_F(ServerTest, ListsAndDrainsWorkers) {
  ToyWorker worker(server_->address(), "w", 3);
  worker.OpenSync();
  ASSERT_TRUE(worker.Send());
  ASSERT_TRUE(worker.ReceiveAnswer());
  v1::ListWorkersResponse list;
  Context list_context;
  ASSERT_TRUE(stubs_->cluster->ListWorkers(&list_context, {}, &list).ok());
  ASSERT_EQ(list.workers_size(), 1);
  EXPECT_EQ(list.workers(0).state(), "connected");
  v1::DrainWorkerRequest drain;
  drain.set_worker("w");
  v1::DrainWorkerResponse drained;
  Context drain_context;
  ASSERT_TRUE(stubs_->cluster->DrainWorker(&drain_context, drain, &drained).ok());
  while (!worker.last().drain()) ASSERT_TRUE(worker.Receive());
  EXPECT_TRUE(worker.EndSync().ok());
}

TEST_F(ServerTest, ManyWorkersAtOnceFinishEveryCellOnce) {
  ASSERT_TRUE(Submit(ToySweep("s", 10, 12)).ok());
  std::vector<std::unique_ptr<ToyWorker>> workers;
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i)
    workers.push_back(std::make_unique<ToyWorker>(server_->address(), "w" + std::to_string(i), 3));
  for (auto& worker : workers) threads.emplace_back([&worker] { Work(worker.get()); });
  // Readers beside them.
  threads.emplace_back([&] {
    for (int i = 0; i < 50; ++i) {
      EXPECT_EQ(Get("s").cells(), 120);
      v1::StatusResponse status;
      Context context;
      EXPECT_TRUE(stubs_->cluster->Status(&context, {}, &status).ok());
    }
  });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(Get("s").done(), 120);
  v1::StatusResponse status;
  Context context;
  ASSERT_TRUE(stubs_->cluster->Status(&context, {}, &status).ok());
  EXPECT_EQ(status.running(), 0);
  EXPECT_GT(status.database_bytes(), 0);
  EXPECT_GT(status.free_disk_bytes(), 0);
  int64_t batches = 0;
  for (const int64_t count : status.batch_histogram()) batches += count;
  EXPECT_GT(batches, 0);
}

// ---- Logs ----

TEST_F(ServerTest, FollowsLogsToTheEndOfTheRun) {
  ASSERT_TRUE(Submit(ToySweep("s", 1, 1)).ok());
  Context context;
  v1::LogsRequest request;
  request.set_cell("s/toy-n1-s0");
  request.set_follow(true);
  auto logs = stubs_->sweeps->Logs(&context, request);  // before the first attempt
  ToyWorker worker(server_->address(), "w", 1);
  worker.OpenSync();
  ASSERT_TRUE(worker.Send());
  ASSERT_TRUE(worker.ReceiveAnswer());
  ASSERT_EQ(worker.held().size(), 1u);
  const v1::HeldLease held = worker.held().begin()->second;
  v1::SyncRequest message;
  v1::LogPart* part = message.add_logs();
  part->set_attempt_id(held.attempt_id());
  part->set_stream("stdout");
  part->set_data("first line\n");
  ASSERT_TRUE(worker.Send(message));
  ASSERT_TRUE(worker.ReceiveAnswer());
  v1::LogChunk chunk;
  ASSERT_TRUE(logs->Read(&chunk));
  EXPECT_EQ(chunk.data(), "first line\n");
  EXPECT_EQ(chunk.stream(), "stdout");
  EXPECT_EQ(chunk.attempt_id(), held.attempt_id());
  v1::FinishRequest finish = worker.FinishOf(held, R"({"metrics":{"validation_loss":1}})");
  part = finish.add_logs();
  part->set_attempt_id(held.attempt_id());
  part->set_stream("stderr");
  part->set_data("last words\n");
  v1::FinishResponse response;
  ASSERT_TRUE(worker.Finish(finish, &response).ok());
  ASSERT_TRUE(logs->Read(&chunk));
  EXPECT_EQ(chunk.data(), "last words\n");
  EXPECT_EQ(chunk.stream(), "stderr");
  EXPECT_FALSE(logs->Read(&chunk)) << "the run is done";
  EXPECT_TRUE(logs->Finish().ok());

  request.set_follow(false);
  request.set_offset(6);
  Context from_context;
  auto from = stubs_->sweeps->Logs(&from_context, request);
  ASSERT_TRUE(from->Read(&chunk));
  EXPECT_EQ(chunk.data(), "line\n");
  EXPECT_EQ(chunk.offset(), 6);
  request.set_cell("s/nothing");
  Context unknown;
  EXPECT_EQ(stubs_->sweeps->Logs(&unknown, request)->Finish().error_code(), StatusCode::NOT_FOUND);
}

// ---- Artefacts ----

class BlobServerTest : public ServerTest {
 protected:
  grpc::Status Upload(const std::string& sha256, const std::string& content, int64_t offset, size_t chunk_bytes,
                      int64_t* stored = nullptr) {
    Context context;
    v1::UploadBlobResponse response;
    auto writer = stubs_->workers->UploadBlob(&context, &response);
    for (size_t at = static_cast<size_t>(offset); at < content.size(); at += chunk_bytes) {
      v1::BlobChunk chunk;
      chunk.set_sha256(sha256);
      chunk.set_total_bytes(static_cast<int64_t>(content.size()));
      chunk.set_offset(static_cast<int64_t>(at));
      chunk.set_data(content.substr(at, chunk_bytes));
      if (!writer->Write(chunk)) break;
    }
    writer->WritesDone();
    const auto status = writer->Finish();
    if (stored) *stored = response.bytes();
    return status;
  }
  grpc::Status Download(const std::string& sha256, int64_t offset, std::string* content) {
    Context context;
    v1::DownloadBlobRequest request;
    request.set_sha256(sha256);
    request.set_offset(offset);
    auto reader = stubs_->workers->DownloadBlob(&context, request);
    v1::BlobChunk chunk;
    while (reader->Read(&chunk)) *content += chunk.data();
    return reader->Finish();
  }
  v1::BlobStat Stat(const std::string& sha256) {
    Context context;
    v1::StatBlobsRequest request;
    request.add_sha256(sha256);
    v1::StatBlobsResponse response;
    EXPECT_TRUE(stubs_->workers->StatBlobs(&context, request, &response).ok());
    return response.blobs(0);
  }
};

TEST_F(BlobServerTest, MovesArtefactsBothWays) {
  std::string content;
  for (int64_t i = 0; content.size() < 3'500'000; ++i) content += std::to_string(i * 7919) + " ";
  const std::string sha256 = common::Sha256Hex(content);
  int64_t stored = 0;
  auto status = Upload(sha256, content, 0, 1 << 20, &stored);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(stored, static_cast<int64_t>(content.size()));
  EXPECT_TRUE(Stat(sha256).complete());
  std::string back, tail;
  ASSERT_TRUE(Download(sha256, 0, &back).ok());
  EXPECT_EQ(back, content);
  ASSERT_TRUE(Download(sha256, 3'000'000, &tail).ok());
  EXPECT_EQ(tail, content.substr(3'000'000));
  Restart();
  EXPECT_TRUE(Stat(sha256).complete());
}

TEST_F(BlobServerTest, GoesOnWithABrokenUpload) {
  const std::string content(2'000'000, 'x'), sha256 = common::Sha256Hex(content);
  {
    Context context;
    v1::UploadBlobResponse response;
    auto writer = stubs_->workers->UploadBlob(&context, &response);
    v1::BlobChunk chunk;
    chunk.set_sha256(sha256);
    chunk.set_total_bytes(2'000'000);
    chunk.set_data(content.substr(0, 1'000'000));
    ASSERT_TRUE(writer->Write(chunk));
    writer->WritesDone();
    EXPECT_EQ(writer->Finish().error_code(), StatusCode::FAILED_PRECONDITION);
  }
  const auto stat = Stat(sha256);
  EXPECT_FALSE(stat.complete());
  ASSERT_EQ(stat.bytes(), 1'000'000);
  ASSERT_TRUE(Upload(sha256, content, stat.bytes(), 400'000).ok());
  EXPECT_TRUE(Stat(sha256).complete());
}

TEST_F(BlobServerTest, RefusesWrongBytesAndNonsense) {
  EXPECT_EQ(Upload(common::Sha256Hex("a"), "b", 0, 10).error_code(), StatusCode::DATA_LOSS);
  EXPECT_EQ(Upload("../../escape", "b", 0, 10).error_code(), StatusCode::INVALID_ARGUMENT);
  const std::string big(2'000'000, 'y');
  EXPECT_EQ(Upload(common::Sha256Hex(big), big, 0, big.size()).error_code(), StatusCode::INVALID_ARGUMENT)
      << "a chunk above 1 MiB";
  EXPECT_EQ(Upload(common::Sha256Hex(""), "", 0, 1).error_code(), StatusCode::INVALID_ARGUMENT) << "no chunk at all";
  std::string nothing;
  EXPECT_EQ(Download(common::Sha256Hex("absent"), 0, &nothing).error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(Download("x", 0, &nothing).error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_F(BlobServerTest, AResultThatNamesAnAbsentBlobWaitsForIt) {
  ASSERT_TRUE(Submit(ToySweep("s", 1, 1)).ok());
  ToyWorker worker(server_->address(), "w", 1);
  worker.OpenSync();
  ASSERT_TRUE(worker.Send());
  ASSERT_TRUE(worker.ReceiveAnswer());
  const std::string content = "weights", sha256 = common::Sha256Hex(content);
  v1::FinishRequest finish = worker.FinishOf(worker.held().begin()->second, R"({"metrics":{"validation_loss":1}})");
  v1::Output* output = finish.add_outputs();
  output->set_name("model");
  v1::BlobFile* file = output->add_files();
  file->set_path("model.safetensors");
  file->set_sha256(sha256);
  file->set_bytes(7);
  v1::FinishResponse response;
  EXPECT_EQ(worker.Finish(finish, &response).error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(Get("s").done(), 0);
  ASSERT_TRUE(Upload(sha256, content, 0, 100).ok());
  ASSERT_TRUE(worker.Finish(finish, &response).ok());
  EXPECT_TRUE(response.accepted());
  EXPECT_EQ(Get("s").done(), 1);
  ASSERT_TRUE(worker.Finish(finish, &response).ok()) << "asking again gives the same answer";
  EXPECT_TRUE(response.accepted());
}

TEST_F(BlobServerTest, CollectsWhatNothingNames) {
  CoordinatorOptions options = Options();
  options.collect_interval_ms = 1;
  options.blob_grace_ms = -1000;  // everything is old enough
  const std::string sha256 = common::Sha256Hex("unnamed");
  ASSERT_TRUE(Upload(sha256, "unnamed", 0, 100).ok());
  server_.reset();
  StartServer(options);
  // Ends when the collection has come round; a coordinator that never collects hangs here, and the test's time limit
  // tells.
  while (Stat(sha256).complete()) std::this_thread::yield();
}

// ---- The cluster ----

TEST_F(ServerTest, BacksUpWhileItRuns) {
  ASSERT_TRUE(Submit(ToySweep("s", 2, 2)).ok());
  ToyWorker worker(server_->address(), "w", 2);
  Work(&worker);
  const fs::path target = folder_.path() / "copy.db";
  v1::BackupRequest request;
  request.set_path(target.string());
  v1::BackupResponse response;
  Context context;
  auto status = stubs_->cluster->Backup(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.bytes(), static_cast<int64_t>(fs::file_size(target)));
  auto table = records::LoadSqlite(target, {"s"});
  ASSERT_TRUE(table.ok()) << table.error().message;
  EXPECT_EQ(table->size(), 4u);
  Context again;
  EXPECT_EQ(stubs_->cluster->Backup(&again, request, &response).error_code(), StatusCode::ALREADY_EXISTS);
  request.set_path("relative.db");
  Context relative;
  EXPECT_EQ(stubs_->cluster->Backup(&relative, request, &response).error_code(), StatusCode::INVALID_ARGUMENT);
  request.set_path("/nonexistent/folder/copy.db");
  Context nowhere;
  EXPECT_FALSE(stubs_->cluster->Backup(&nowhere, request, &response).ok());
}

// ---- Access ----

TEST_F(ServerTest, ATokenGuardsEveryService) {
  server_.reset();
  CoordinatorOptions options = Options();
  options.listen.token = "open sesame";
  StartServer(options);
  EXPECT_EQ(ReadEndpoint(server_->data_dir())->token, "open sesame");
  const auto denied = StatusCode::PERMISSION_DENIED;
  for (const std::string token : {"", "open sesam", "open sesamE", "open sesame!"}) {
    Context get(token), watch(token), sync(token), upload(token), download(token), slopes(token), status(token),
        logs(token), rows(token), submit(token);
    v1::Sweep sweep;
    EXPECT_EQ(stubs_->sweeps->Get(&get, {}, &sweep).error_code(), denied);
    v1::SubmitResponse submitted;
    EXPECT_EQ(stubs_->sweeps->Submit(&submit, ToySweep("s", 1, 1), &submitted).error_code(), denied);
    EXPECT_EQ(stubs_->sweeps->Watch(&watch, {})->Finish().error_code(), denied);
    EXPECT_EQ(stubs_->sweeps->Logs(&logs, {})->Finish().error_code(), denied);
    EXPECT_EQ(stubs_->sweeps->Export(&rows, {})->Finish().error_code(), denied);
    EXPECT_EQ(stubs_->workers->Sync(&sync.context)->Finish().error_code(), denied);
    v1::UploadBlobResponse uploaded;
    EXPECT_EQ(stubs_->workers->UploadBlob(&upload, &uploaded)->Finish().error_code(), denied);
    EXPECT_EQ(stubs_->workers->DownloadBlob(&download, {})->Finish().error_code(), denied);
    v1::SlopesResponse slopes_response;
    EXPECT_EQ(stubs_->analysis->Slopes(&slopes, {}, &slopes_response).error_code(), denied);
    v1::StatusResponse status_response;
    EXPECT_EQ(stubs_->cluster->Status(&status, {}, &status_response).error_code(), denied);
  }
  Context context("open sesame");
  v1::StatusResponse status;
  EXPECT_TRUE(stubs_->cluster->Status(&context, {}, &status).ok());
  EXPECT_EQ(status.cluster_id(), server_->cluster_id());
}

}  // namespace
}  // namespace allometry::coordinator
