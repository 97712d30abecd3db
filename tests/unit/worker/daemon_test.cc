#include <csignal>
#include <fstream>

#include "common/files.h"
#include "common/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/worker/fake_coordinator.h"
#include "tests/unit/worker/scratch.h"
#include "worker/daemon/worker.h"

namespace allometry::worker {
namespace {

using common::Json;
using v1::FinishRequest;
using v1::HeldLease;

class DaemonTest : public ::testing::Test {
 protected:
  WorkerOptions Options() {
    WorkerOptions options;
    options.coordinator = server_.address();
    options.work_directory = scratch_ / "work";
    options.trainers["fake"] = {ALLOMETRY_SOURCE_DIR "/tests/unit/worker/fake_trainer.py"};
    options.grace_s = 5;
    options.threads_per_slot = 3;
    return options;
  }
  void Begin(WorkerOptions options) {
    worker_ = std::make_unique<Worker>(std::move(options));
    const common::Status status = worker_->Start();
    ASSERT_TRUE(status.ok()) << status.error().message;
  }
  v1::Assignment Assignment(int64_t attempt_id, const Json& run, int64_t run_id = 0) {
    v1::Assignment assignment;
    assignment.set_run_id(run_id ? run_id : attempt_id);
    assignment.set_attempt_id(attempt_id);
    assignment.set_generation(1);
    auto* spec = assignment.mutable_spec();
    spec->set_trainer("fake");
    spec->set_run_json(run.dump());
    spec->set_identity("identity of run " + std::to_string(assignment.run_id()));
    spec->set_keep_outputs(true);
    return assignment;
  }
  // What the probe of Options with GPUs prints from now on.
  void WriteProbe(const Json& devices) {
    ASSERT_TRUE(common::WriteFileAtomically(scratch_ / "devices.json", Json{{"devices", devices}}.dump()).ok());
  }
  WorkerOptions OptionsWithGpus(const std::vector<Json>& devices) {
    WriteProbe(devices);
    const auto probe = scratch_ / "probe.sh";
    std::ofstream(probe) << "#!/bin/sh\ncat '" << (scratch_ / "devices.json").string() << "'\n";
    std::filesystem::permissions(probe, std::filesystem::perms::owner_all);
    WorkerOptions options = Options();
    options.trainers["builtin"] = {probe.string()};
    return options;
  }
  // Keeps what it is asked in `asked`, and a run's file as run.json; once there is a file `whole` a comparison finds
  // what is in devices.json.checked.
  void WriteCountingProbe() {
    const std::string kept = scratch_.path().string();
    std::ofstream(scratch_ / "probe.sh") << "#!/bin/sh\ncd '" << kept << "' || exit 1\n"
                                         << "if [ \"$1\" != --probe ]; then cp \"$OLDPWD\"/run.json . ; exit; fi\n"
                                         << "echo \"$*\" >> asked\n"
                                         << "cat devices.json$(test -z \"$2\" || test ! -e whole || echo .checked)\n";
  }
  static v1::Assignment OnDevice(v1::Assignment assignment, int device, int parts) {
    assignment.set_device(device);
    assignment.set_device_parts(parts);
    return assignment;
  }
  // A rank of attempt 1, of run 1 on two devices.
  v1::Assignment Rank(int64_t rank, const Json& run) {
    v1::Assignment assignment = Assignment(1, run);
    assignment.set_rank(rank);
    assignment.set_ranks(2);
    return assignment;
  }
  bool Finished(size_t count) {
    return Eventually([&] { return server_.With([&](auto& s) { return s.finished.size() >= count; }); });
  }
  FinishRequest Last() {
    return server_.With([](auto& s) { return s.finished.back(); });
  }
  bool Reaches(int64_t attempt_id, HeldLease::Phase phase, int64_t step = 0) {
    return Eventually([&] {
      return server_.With([&](auto& s) {
        auto it = s.held.find(attempt_id);
        return it != s.held.end() && it->second.phase() == phase && it->second.step() >= step;
      });
    });
  }
  // The process of the attempt's trainer, which prints its number first; 0 before.
  pid_t TrainerPid(int64_t attempt_id) {
    const std::string id = std::to_string(attempt_id);
    auto text = common::ReadFile(scratch_ / ("work/runs/" + id + "/attempts/" + id + "/stdout.log"));
    return text && text->rfind("hello from ", 0) == 0 ? static_cast<pid_t>(std::stol(text->substr(11))) : 0;
  }
  static bool Gone(pid_t pid) { return pid > 0 && ::kill(pid, 0) != 0; }

  Scratch scratch_;
  FakeCoordinator server_;
  std::unique_ptr<Worker> worker_;
};

TEST_F(DaemonTest, RunsAnAttemptToItsAcceptedResult) {
  server_.With([](auto& s) { s.failing_finishes = 2; });
  server_.Want(Assignment(1, {{"steps", 600}, {"weight_bytes", 3'000'000}}));
  Begin(Options());
  ASSERT_TRUE(Finished(1));
  const FinishRequest finish = Last();
  EXPECT_EQ(finish.outcome(), FinishRequest::OUTCOME_DONE) << finish.message();
  EXPECT_EQ(finish.exit_code(), 0);
  EXPECT_EQ(finish.generation(), 1);
  EXPECT_EQ(finish.last_step(), 600);
  EXPECT_TRUE(finish.has_resumed_step()) << "the trainer said where it starts";
  EXPECT_EQ(finish.resumed_step(), 0);
  EXPECT_EQ(Json::parse(finish.result_json())["metrics"]["validation_loss"], 1.5);
  const Json provenance = Json::parse(finish.provenance_json());
  EXPECT_EQ(provenance["trainer"], "fake");
  EXPECT_EQ(provenance["worker"]["device"], "cpu");
  ASSERT_EQ(finish.outputs_size(), 1);
  EXPECT_EQ(finish.outputs(0).name(), "model");
  ASSERT_EQ(finish.outputs(0).files_size(), 2);
  EXPECT_EQ(finish.outputs(0).files(1).path(), "weights");
  server_.With([&](auto& s) {
    EXPECT_EQ(s.blobs.at(finish.outputs(0).files(1).sha256()), std::string(3'000'000, 'w'));
    EXPECT_EQ(s.metrics.size(), 1200u) << "every point of both series";
    EXPECT_EQ(s.metrics.at({"loss", 4}), 0.25);
    EXPECT_TRUE(std::isnan(s.metrics.at({"norm", 1})));
    EXPECT_EQ(s.logs.at("stderr"), "a warning\n");
    EXPECT_EQ(s.logs.at("stdout").rfind("hello from ", 0), 0u);
    EXPECT_FALSE(s.numbers_fell);
  });
  EXPECT_TRUE(Eventually([&] { return !std::filesystem::exists(scratch_ / "work/runs/1/run.json"); }));
  EXPECT_TRUE(std::filesystem::exists(scratch_ / "work/runs/1/attempts/1/stdout.log"));
  worker_->Stop();
  EXPECT_TRUE(worker_->Join().ok());
  server_.With([](auto& s) { EXPECT_TRUE(s.left); });
}

TEST_F(DaemonTest, MapsExitCodesAndSendsTheReason) {
  Begin(Options());
  const std::map<int, FinishRequest::Outcome> outcomes{{42, FinishRequest::OUTCOME_CONFIG_ERROR},
                                                       {43, FinishRequest::OUTCOME_DATA_ERROR},
                                                       {44, FinishRequest::OUTCOME_DIVERGED},
                                                       {45, FinishRequest::OUTCOME_OUT_OF_MEMORY},
                                                       {9, FinishRequest::OUTCOME_CRASH}};
  size_t count = 0;
  for (const auto& [code, outcome] : outcomes) {
    server_.Want(Assignment(static_cast<int64_t>(++count), {{"exit", code}}));
    ASSERT_TRUE(Finished(count));
    EXPECT_EQ(Last().outcome(), outcome) << code;
    EXPECT_EQ(Last().exit_code(), code);
    EXPECT_EQ(Last().message(), "exit code " + std::to_string(code) + "\na warning\nthe reason why");
  }
  v1::Assignment unknown = Assignment(99, {});
  unknown.mutable_spec()->set_trainer("somebody's");
  server_.Want(unknown);
  ASSERT_TRUE(Finished(count + 1));
  EXPECT_EQ(Last().outcome(), FinishRequest::OUTCOME_CONFIG_ERROR);
  EXPECT_NE(Last().message().find("--trainer somebody's="), std::string::npos);
}

TEST_F(DaemonTest, FetchesInputsByHashAndGoesOnWithABrokenDownload) {
  std::string big(3'500'000, 'x');
  big[7] = 'y';
  const std::string big_sha = server_.AddBlob(big), small_sha = server_.AddBlob("small");
  const std::string corpus_sha = common::Sha256Hex("the corpus");
  const std::string elsewhere_sha = common::Sha256Hex("below a data root");
  std::ofstream(scratch_ / "corpus.txt") << "the corpus";
  std::filesystem::create_directories(scratch_ / "roots/deep");
  std::ofstream(scratch_ / "roots/deep/renamed.txt") << "below a data root";
  v1::Assignment assignment = Assignment(1, {{"steps", 1}});
  assignment.mutable_spec()->set_activation_checkpointing(true);
  auto* input = assignment.mutable_spec()->add_inputs();
  input->set_name("data");
  for (const auto& [path, sha, bytes] :
       {std::tuple{"tokens.bin", big_sha, 3'500'000}, {"sub/data.json", small_sha, 5}}) {
    auto* file = input->mutable_output()->add_files();
    file->set_path(path);
    file->set_sha256(sha);
    file->set_bytes(bytes);
  }
  for (const auto& [path, sha, bytes] : {std::tuple{(scratch_ / "corpus.txt").string(), corpus_sha, 10},
                                         {std::string("/no/such/file"), elsewhere_sha, 17}}) {
    auto* file = assignment.mutable_spec()->add_files();
    file->set_name("corpus.txt");
    file->set_path(path);
    file->set_sha256(sha);
    file->set_bytes(bytes);
  }
  server_.With([](auto& s) { s.cut_downloads = 1; });
  server_.Want(assignment);
  WorkerOptions options = Options();
  options.data_roots = {scratch_ / "roots"};
  Begin(options);
  ASSERT_TRUE(Finished(1));
  const FinishRequest finish = Last();
  ASSERT_EQ(finish.outcome(), FinishRequest::OUTCOME_DONE) << finish.message();
  server_.With([&](auto& s) {
    const Json about = Json::parse(s.blobs.at(finish.outputs(0).files(0).sha256()));
    EXPECT_EQ(about["inputs"]["data"], Json({"sub", "tokens.bin"}));
    EXPECT_EQ(about["files"][corpus_sha], "the corpus");
    EXPECT_EQ(about["files"][elsewhere_sha], "below a data root");
    EXPECT_EQ(about["threads"], 3);
    EXPECT_EQ(about["activation_checkpointing"], true);
    ASSERT_EQ(s.download_offsets.size(), 3u);
    EXPECT_EQ(s.download_offsets[0], 0);
    EXPECT_EQ(s.download_offsets[1], 1 << 20) << "the second try goes on behind the first chunk";
  });
  EXPECT_EQ(*common::ReadFile(scratch_ / ("work/blobs/" + big_sha)), big);
}

TEST_F(DaemonTest, AnInputThatNobodyHasIsALostInput) {
  v1::Assignment assignment = Assignment(1, {});
  auto* file = assignment.mutable_spec()->add_files();
  file->set_name("gone.txt");
  file->set_sha256(common::Sha256Hex("gone"));
  file->set_bytes(4);
  server_.Want(assignment);
  v1::Assignment evil = Assignment(2, {});
  auto* input = evil.mutable_spec()->add_inputs();
  input->set_name("data");
  auto* place = input->mutable_output()->add_files();
  place->set_path("../../../escape");
  place->set_sha256(server_.AddBlob("evil"));
  place->set_bytes(4);
  Begin(Options());
  ASSERT_TRUE(Finished(1));
  EXPECT_EQ(Last().outcome(), FinishRequest::OUTCOME_LOST_INPUT);
  server_.Want(evil);
  ASSERT_TRUE(Finished(2));
  EXPECT_EQ(Last().outcome(), FinishRequest::OUTCOME_LOST_INPUT);
  EXPECT_FALSE(std::filesystem::exists(scratch_ / "escape"));
}

TEST_F(DaemonTest, GoesOnWithABrokenUpload) {
  server_.With([](auto& s) { s.cut_uploads = 1; });
  v1::Assignment assignment = Assignment(1, {{"steps", 1}, {"weight_bytes", 2'500'000}});
  server_.Want(assignment);
  Begin(Options());
  ASSERT_TRUE(Finished(1));
  ASSERT_EQ(Last().outcome(), FinishRequest::OUTCOME_DONE) << Last().message();
  server_.With([](auto& s) {
    EXPECT_EQ(s.blobs.size(), 2u);
    EXPECT_EQ(s.upload_offsets.size(), 3u) << "two files, one of them in two parts";
    EXPECT_EQ(std::count(s.upload_offsets.begin(), s.upload_offsets.end(), 0), 2);
  });
}

TEST_F(DaemonTest, SurvivesARestartOfTheCoordinator) {
  server_.Want(Assignment(1, {{"forever", true}, {"pause_s", 0.02}}));
  Begin(Options());
  ASSERT_TRUE(Reaches(1, HeldLease::PHASE_RUNNING, 5));
  const pid_t pid = TrainerPid(1);
  server_.Stop();
  server_.With([](auto& s) {
    s.held.clear();
    s.forget = true;
  });
  server_.Start();
  ASSERT_TRUE(Eventually([&] { return server_.With([](auto& s) { return s.registered.size() == 2; }); }));
  ASSERT_TRUE(Reaches(1, HeldLease::PHASE_RUNNING, 10));
  EXPECT_EQ(TrainerPid(1), pid);
  EXPECT_FALSE(Gone(pid)) << "silence inside the lease kills nothing";
  server_.With([](auto& s) {
    EXPECT_EQ(s.registered[0].worker_uuid(), s.registered[1].worker_uuid());
    EXPECT_EQ(s.registered[1].cluster_id(), "cluster-1");
    s.desired.at(1).set_stop(true);
  });
  ASSERT_TRUE(Finished(1));
  EXPECT_EQ(Last().outcome(), FinishRequest::OUTCOME_STOPPED);
  server_.With([](auto& s) {
    ASSERT_EQ(s.checkpoints.size(), 1u);
    EXPECT_EQ(s.metrics.count({"loss", 1}), 1u);
    const int64_t last = s.finished.back().last_step();
    for (int64_t step = 1; step <= last; ++step) EXPECT_EQ(s.metrics.count({"loss", step}), 1u) << step;
  });
}

TEST_F(DaemonTest, ATrainerEndsBeforeItsUnrenewedLeaseDoes) {
  server_.With([](auto& s) { s.lease_ttl_ms = 3'000; });
  server_.Want(Assignment(1, {{"forever", true}, {"pause_s", 0.02}, {"stubborn", true}}));
  Begin(Options());
  ASSERT_TRUE(Reaches(1, HeldLease::PHASE_RUNNING, 3));
  const pid_t pid = TrainerPid(1);
  server_.With([](auto& s) { s.silent = true; });
  EXPECT_TRUE(Eventually([&] { return Gone(pid); }));
  ASSERT_TRUE(Finished(1)) << "a unary call still gets through, and tells";
  EXPECT_EQ(Last().outcome(), FinishRequest::OUTCOME_STOPPED);
  EXPECT_NE(Last().message().find("lease"), std::string::npos);
}

TEST_F(DaemonTest, DropsWhatIsNoLongerWantedWithoutAWord) {
  server_.Want(Assignment(1, {{"forever", true}, {"pause_s", 0.02}}));
  Begin(Options());
  ASSERT_TRUE(Reaches(1, HeldLease::PHASE_RUNNING, 3));
  const pid_t pid = TrainerPid(1);
  server_.With([](auto& s) { s.desired.clear(); });
  EXPECT_TRUE(Eventually([&] { return Gone(pid); }));
  EXPECT_TRUE(Eventually([&] { return server_.With([](auto& s) { return s.held.empty(); }); }));
  // Another attempt of the same run on this worker goes on from the checkpoint that the first one left.
  server_.Want(Assignment(2, {{"steps", 1}}, 1));
  ASSERT_TRUE(Finished(1));
  EXPECT_EQ(Last().attempt_id(), 2);
  EXPECT_GE(Last().last_step(), 3);
}

TEST_F(DaemonTest, UploadsCheckpointsAsItRunsAndResumesFromOneElsewhere) {
  server_.With([](auto& s) { s.checkpoint_upload_interval_ms = 100; });
  server_.Want(Assignment(1, {{"forever", true}, {"pause_s", 0.02}, {"checkpoint_every", 5}}));
  Begin(Options());
  ASSERT_TRUE(Eventually([&] { return server_.With([](auto& s) { return s.checkpoints.size() >= 2; }); }));
  worker_->Kill();
  EXPECT_TRUE(worker_->Join().ok());
  server_.With([](auto& s) { EXPECT_TRUE(s.finished.empty()); });
  v1::ReportCheckpointRequest newest = server_.With([](auto& s) { return s.checkpoints.back(); });
  ASSERT_EQ(newest.checkpoint().files_size(), 1);
  EXPECT_EQ(newest.checkpoint().files(0).path(), "step-" + std::to_string(newest.step()) + "/state");

  v1::Assignment second = Assignment(2, {{"steps", 1}}, 1);
  *second.mutable_spec()->mutable_checkpoint() = newest.checkpoint();
  second.mutable_spec()->set_checkpoint_step(newest.step());
  server_.With([](auto& s) { s.desired.clear(); });
  server_.Want(second);
  WorkerOptions elsewhere = Options();
  elsewhere.work_directory = scratch_ / "elsewhere";
  Begin(elsewhere);
  ASSERT_TRUE(Finished(1));
  EXPECT_EQ(Last().outcome(), FinishRequest::OUTCOME_DONE) << Last().message();
  EXPECT_EQ(Last().last_step(), newest.step());
}

TEST_F(DaemonTest, ANumberReusedByAnotherRunFindsAnEmptyDirectory) {
  server_.Want(Assignment(1, {{"steps", 3}, {"checkpoint_every", 1}, {"exit", 9}}));
  Begin(Options());
  ASSERT_TRUE(Finished(1));
  v1::Assignment other = Assignment(2, {{"steps", 2}}, 1);
  other.mutable_spec()->set_identity("another study's run");
  server_.Want(other);
  ASSERT_TRUE(Finished(2));
  EXPECT_EQ(Last().last_step(), 2) << "not resumed from the other run's step 3";
}

TEST_F(DaemonTest, LongLogsArriveWhole) {
  server_.Want(Assignment(1, {{"steps", 1}, {"say", "0123456789"}, {"times", 200'000}}));
  Begin(Options());
  ASSERT_TRUE(Finished(1));
  auto text = common::ReadFile(scratch_ / "work/runs/1/attempts/1/stdout.log");
  ASSERT_TRUE(text.ok());
  EXPECT_GT(text->size(), 2'000'000u);
  server_.With([&](auto& s) { EXPECT_TRUE(s.logs.at("stdout") == *text); });
}

TEST_F(DaemonTest, UsesItsSlotsAtOnceAndNoMore) {
  for (int64_t id = 1; id <= 3; ++id) server_.Want(Assignment(id, {{"forever", true}, {"pause_s", 0.02}}));
  WorkerOptions options = Options();
  options.slots = 2;
  Begin(options);
  ASSERT_TRUE(Reaches(1, HeldLease::PHASE_RUNNING, 1));
  ASSERT_TRUE(Reaches(2, HeldLease::PHASE_RUNNING, 1));
  ASSERT_TRUE(Reaches(3, HeldLease::PHASE_FETCHING)) << "held all the same: else it would count as lost";
  EXPECT_EQ(TrainerPid(3), 0);
  server_.With([](auto& s) { s.desired.erase(1); });
  EXPECT_TRUE(Reaches(3, HeldLease::PHASE_RUNNING, 1)) << "the slot that became free is used";
}

TEST_F(DaemonTest, StopWritesCheckpointsAndReportsThem) {
  server_.Want(Assignment(1, {{"forever", true}, {"pause_s", 0.02}}));
  Begin(Options());
  ASSERT_TRUE(Reaches(1, HeldLease::PHASE_RUNNING, 3));
  worker_->Stop();
  EXPECT_TRUE(worker_->Join().ok());
  EXPECT_FALSE(worker_->running());
  server_.With([](auto& s) {
    ASSERT_EQ(s.finished.size(), 1u);
    EXPECT_EQ(s.finished[0].outcome(), FinishRequest::OUTCOME_STOPPED);
    EXPECT_EQ(s.finished[0].exit_code(), 40);
    ASSERT_EQ(s.checkpoints.size(), 1u);
    EXPECT_TRUE(s.blobs.count(s.checkpoints[0].checkpoint().files(0).sha256()));
    EXPECT_TRUE(s.left);
  });
}

TEST_F(DaemonTest, DrainsToTheEndOfWhatRunsAndRefusesMore) {
  server_.Want(Assignment(1, {{"steps", 20}, {"pause_s", 0.02}}));
  Begin(Options());
  ASSERT_TRUE(Reaches(1, HeldLease::PHASE_RUNNING, 1));
  worker_->RequestDrain();
  server_.Want(Assignment(2, {{"forever", true}}));
  EXPECT_TRUE(worker_->Join().ok());
  server_.With([](auto& s) {
    for (const auto& finish : s.finished) {
      EXPECT_EQ(finish.outcome(),
                finish.attempt_id() == 1 ? FinishRequest::OUTCOME_DONE : FinishRequest::OUTCOME_STOPPED);
    }
    EXPECT_EQ(s.finished.size(), 2u);
  });
}

TEST_F(DaemonTest, LeavesWhenIdle) {
  WorkerOptions options = Options();
  options.idle_timeout_s = 1;
  std::stop_source stop;
  EXPECT_EQ(RunWorker(options, stop.get_token()), 0);
  server_.With([](auto& s) { EXPECT_TRUE(s.left); });
}

TEST_F(DaemonTest, AWorkDirectoryInUseIsRefused) {
  Begin(Options());
  Worker second(Options());
  const common::Status status = second.Start();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, common::ErrorCode::kFailedPrecondition);
  EXPECT_NE(status.error().message.find("in use"), std::string::npos);
}

TEST_F(DaemonTest, AWrongTokenOrClusterEndsTheWorkerWithAReason) {
  server_.With([](auto& s) { s.token = "secret"; });
  WorkerOptions options = Options();
  options.token = "wrong";
  Begin(options);
  EXPECT_EQ(worker_->Join().error().code, common::ErrorCode::kPermissionDenied);
  options.token = "secret";
  options.cluster_id = "cluster-2";
  Begin(options);
  EXPECT_EQ(worker_->Join().error().code, common::ErrorCode::kFailedPrecondition);
  options.cluster_id = "cluster-1";
  Begin(options);
  EXPECT_TRUE(Eventually([&] { return server_.With([](auto& s) { return s.newest_number > 0; }); }));
}

TEST_F(DaemonTest, GpusAreSlotsAndTheProbeTellsThem) {
  WorkerOptions options = OptionsWithGpus(
      {{{"device", "cuda:0"}, {"name", "GPU A"}, {"memory_bytes", 80'000}}, {{"device", "cuda:1"}, {"name", "GPU B"}}});
  for (int64_t id = 1; id <= 2; ++id) server_.Want(Assignment(id, {{"forever", true}, {"pause_s", 0.02}}));
  Begin(options);
  ASSERT_TRUE(Reaches(1, HeldLease::PHASE_RUNNING, 1));
  ASSERT_TRUE(Reaches(2, HeldLease::PHASE_RUNNING, 1));
  server_.With([](auto& s) {
    ASSERT_EQ(s.registered[0].devices_size(), 2);
    EXPECT_EQ(s.registered[0].devices(1), "cuda:1 GPU B");
    ASSERT_EQ(s.registered[0].device_memory_bytes_size(), 2);
    EXPECT_EQ(s.registered[0].device_memory_bytes(0), 80'000);
    EXPECT_EQ(s.registered[0].device_memory_bytes(1), 0) << "not known";
    EXPECT_TRUE(s.faults.empty());
    EXPECT_EQ(s.registered[0].slots(), 2);
    EXPECT_EQ(s.held.at(1).device(), "cuda:0");
    EXPECT_EQ(s.held.at(2).device(), "cuda:1");
  });
}

// The built-in trainer alone has kernels, and they are for the devices on which they prove right.
TEST_F(DaemonTest, KernelsAreUsedWhereTheyProveRight) {
  const WorkerOptions options =
      OptionsWithGpus({{{"device", "cuda:0"}, {"name", "GPU A"}, {"kernels", true}, {"graphs", false}},
                       {{"device", "cuda:1"}, {"name", "GPU B"}, {"kernels", false}, {"why_not", "a loss differs"}}});
  const std::string kept = scratch_.path().string();
  std::ofstream(scratch_ / "probe.sh") << "#!/bin/sh\nif [ \"$1\" = --probe ]; then echo \"$*\" > '" << kept
                                       << "/asked'; cat '" << kept << "/devices.json'; else cp run.json '" << kept
                                       << "/'\"$(basename \"$PWD\")\".json; fi\n";
  for (int64_t id = 1; id <= 3; ++id) {
    v1::Assignment assignment = OnDevice(Assignment(id, Json::object()), id == 2, 8);
    if (id < 3) assignment.mutable_spec()->set_trainer("builtin");
    server_.Want(assignment);
  }
  Begin(options);
  ASSERT_TRUE(Finished(3));
  EXPECT_EQ(*common::ReadFile(scratch_ / "asked"), "--probe --check-kernels\n");
  const Json right = (*common::ReadJsonFile(scratch_ / "1.json"))["execution"];
  EXPECT_EQ(right["kernels"], true);
  EXPECT_EQ(right["graphs"], false);
  EXPECT_FALSE((*common::ReadJsonFile(scratch_ / "2.json"))["execution"].contains("kernels"));
  EXPECT_FALSE(std::filesystem::exists(scratch_ / "3.json")) << "a trainer of one's own";
}

// Kernels are compared on a device that was out of service when the worker started, once, before it is used.
TEST_F(DaemonTest, KernelsAreComparedOnADeviceThatComesBack) {
  Json device{{"device", "cuda:0"}, {"name", "GPU"}, {"uuid", "GPU-0"}, {"fault", "device_lost: Xid 79"}};
  WorkerOptions options = OptionsWithGpus({device});
  options.probe_interval_s = 0;
  WriteCountingProbe();
  Begin(options);
  ASSERT_TRUE(Eventually([&] { return server_.With([](auto& s) { return s.faults.size() == 1; }); }));
  device["fault"] = "";
  Json known = device;
  known["kernels"] = true;
  const std::string checked = Json{{"devices", Json::array({known})}}.dump();
  ASSERT_TRUE(common::WriteFileAtomically(scratch_ / "devices.json.checked", checked).ok());
  ASSERT_TRUE(common::WriteFileAtomically(scratch_ / "whole", "").ok());
  WriteProbe(Json::array({device}));
  const auto compared = [&] {
    const auto asked = common::ReadFile(scratch_ / "asked");
    return asked && asked->ends_with("--probe\n--probe --check-kernels cuda:0\n");
  };
  ASSERT_TRUE(Eventually([&] { return server_.With([](auto& s) { return s.faults.empty(); }); }));
  EXPECT_TRUE(compared()) << "before it is in service";
  v1::Assignment assignment = OnDevice(Assignment(1, Json::object()), 0, 16);
  assignment.mutable_spec()->set_trainer("builtin");
  server_.Want(assignment);
  ASSERT_TRUE(Finished(1));
  EXPECT_EQ((*common::ReadJsonFile(scratch_ / "run.json"))["execution"]["kernels"], true);
  EXPECT_TRUE(compared()) << "no further probe";
}

TEST_F(DaemonTest, ADeviceThatComesBackComputesAsOthersOfItsKind) {
  Json lost{{"device", "cuda:0"}, {"name", "GPU"}, {"uuid", "GPU-0"}, {"fault", "device_lost: Xid 79"}};
  const Json other{{"device", "cuda:1"}, {"name", "GPU"}, {"uuid", "GPU-1"}, {"kernels", true}, {"graphs", true}};
  WorkerOptions options = OptionsWithGpus({lost, other});
  options.probe_interval_s = 0;
  WriteCountingProbe();
  Begin(options);
  ASSERT_TRUE(Eventually([&] { return server_.With([](auto& s) { return s.faults.size() == 1; }); }));
  lost["fault"] = "";
  WriteProbe({lost, other});
  ASSERT_TRUE(Eventually([&] { return server_.With([](auto& s) { return s.faults.empty(); }); }));
  EXPECT_THAT(*common::ReadFile(scratch_ / "asked"), ::testing::Not(::testing::HasSubstr("--check-kernels cuda")));
  v1::Assignment assignment = OnDevice(Assignment(1, Json::object()), 0, 16);
  assignment.mutable_spec()->set_trainer("builtin");
  server_.Want(assignment);
  ASSERT_TRUE(Finished(1));
  EXPECT_EQ((*common::ReadJsonFile(scratch_ / "run.json"))["execution"]["graphs"], true);
}

// A comparison that never gives an answer is made twice.
TEST_F(DaemonTest, ADeviceOnWhichNothingComparesIsUsedWithoutKernels) {
  Json device{{"device", "cuda:0"}, {"name", "GPU"}, {"uuid", "GPU-0"}, {"fault", "device_lost: Xid 79"}};
  WorkerOptions options = OptionsWithGpus({device});
  options.probe_interval_s = 0;
  WriteCountingProbe();
  ASSERT_TRUE(common::WriteFileAtomically(scratch_ / "devices.json.checked", "no answer").ok());
  Begin(options);
  ASSERT_TRUE(Eventually([&] { return server_.With([](auto& s) { return s.faults.size() == 1; }); }));
  ASSERT_TRUE(common::WriteFileAtomically(scratch_ / "whole", "").ok());
  device["fault"] = "";
  WriteProbe(Json::array({device}));
  ASSERT_TRUE(Eventually([&] { return server_.With([](auto& s) { return s.faults.empty(); }); }));
  const std::string compared = "--probe --check-kernels cuda:0\n--probe\n";
  EXPECT_THAT(*common::ReadFile(scratch_ / "asked"), ::testing::EndsWith(compared + compared));
}

TEST_F(DaemonTest, AttemptsShareADeviceByParts) {
  WorkerOptions options =
      OptionsWithGpus({{{"device", "cuda:0"}, {"name", "GPU"}}, {{"device", "cuda:1"}, {"name", "GPU"}}});
  options.threads_per_slot = 8;
  for (int64_t id = 1; id <= 3; ++id)
    server_.Want(OnDevice(Assignment(id, {{"forever", true}, {"pause_s", 0.02}}), 1, id == 3 ? 16 : 8));
  Begin(options);
  ASSERT_TRUE(Reaches(1, HeldLease::PHASE_RUNNING, 1));
  ASSERT_TRUE(Reaches(2, HeldLease::PHASE_RUNNING, 1));
  server_.With([](auto& s) {
    EXPECT_EQ(s.held.at(1).device(), "cuda:1");
    EXPECT_EQ(s.held.at(2).device(), "cuda:1");
    EXPECT_EQ(s.held.at(3).phase(), HeldLease::PHASE_FETCHING) << "held, and waiting for its device";
  });
  const auto run_json = common::ReadJsonFile(scratch_ / "work/runs/2/run.json");
  ASSERT_TRUE(run_json.ok());
  EXPECT_EQ((*run_json)["execution"]["device_share"], 0.5);
  EXPECT_EQ((*run_json)["execution"]["threads"], 4) << "threads are shared as the device is";
  server_.With([](auto& s) {
    s.desired.erase(1);
    s.desired.erase(2);
  });
  ASSERT_TRUE(Reaches(3, HeldLease::PHASE_RUNNING, 1));
  EXPECT_FALSE((*common::ReadJsonFile(scratch_ / "work/runs/3/run.json"))["execution"].contains("device_share"));
}

TEST_F(DaemonTest, ALostDeviceIsOutOfServiceUntilTheProbeFindsItWhole) {
  const Json broken{{"device", "cuda:0"}, {"name", "GPU"}, {"uuid", "GPU-0"}, {"fault", "device_lost: Xid 79"}};
  const Json other{{"device", "cuda:1"}, {"name", "GPU"}, {"uuid", "GPU-1"}};
  Json whole = broken;
  whole["fault"] = "";
  WorkerOptions options = OptionsWithGpus({whole, other});
  options.probe_interval_s = 0;
  server_.Want(OnDevice(Assignment(1, {{"steps", 4},
                                       {"checkpoint_every", 2},
                                       {"exit", 1},
                                       {"reason", "RuntimeError: CUDA error: unspecified launch failure\nmore"}}),
                        0, 16));
  Begin(options);
  WriteProbe({broken, other});
  ASSERT_TRUE(Finished(1));
  EXPECT_EQ(Last().outcome(), FinishRequest::OUTCOME_DEVICE_LOST);
  EXPECT_THAT(Last().message(), ::testing::HasSubstr("out of service until the probe finds it whole"));
  server_.With([](auto& s) {
    ASSERT_EQ(s.checkpoints.size(), 1u) << "its checkpoint goes before it";
    EXPECT_EQ(s.checkpoints[0].step(), 4);
  });
  ASSERT_TRUE(Eventually([&] {
    return server_.With([](auto& s) { return s.faults.count(0) && s.faults.at(0) == "device_lost: Xid 79"; });
  })) << "the probe's word";
  server_.With([](auto& s) { EXPECT_EQ(s.faults.size(), 1u); });

  server_.Want(OnDevice(Assignment(2, {{"steps", 1}}), 0, 16));
  ASSERT_TRUE(Finished(2));
  EXPECT_EQ(Last().outcome(), FinishRequest::OUTCOME_STOPPED) << "given back";
  server_.Want(OnDevice(Assignment(3, {{"steps", 1}}), 1, 16));
  ASSERT_TRUE(Finished(3));
  EXPECT_EQ(Last().outcome(), FinishRequest::OUTCOME_DONE) << Last().message();

  WriteProbe({whole, other});
  ASSERT_TRUE(Eventually([&] { return server_.With([](auto& s) { return s.faults.empty(); }); }));
  server_.Want(OnDevice(Assignment(4, {{"steps", 1}}), 0, 16));
  ASSERT_TRUE(Finished(4));
  EXPECT_EQ(Last().outcome(), FinishRequest::OUTCOME_DONE) << Last().message();
}

// CUDA gives its number to the next one.
TEST_F(DaemonTest, AfterALostDeviceNothingStartsByNumberBeforeTheProbeHasAnswered) {
  const Json first{{"device", "cuda:0"}, {"name", "GPU"}, {"uuid", "GPU-0"}};
  Json second{{"device", "cuda:1"}, {"name", "GPU"}, {"uuid", "GPU-1"}};
  WorkerOptions options = OptionsWithGpus({first, second});
  options.probe_interval_s = 1;
  Begin(options);
  WriteProbe(Json::array());  // a probe that fails
  server_.Want(OnDevice(Assignment(1, {{"exit", 47}}), 0, 16));
  ASSERT_TRUE(Finished(1));
  server_.Want(OnDevice(Assignment(2, {{"forever", true}, {"pause_s", 0.02}}), 1, 16));
  ASSERT_TRUE(Reaches(2, HeldLease::PHASE_FETCHING));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_EQ(TrainerPid(2), 0) << "held";
  second["device"] = "cuda:0";
  WriteProbe(Json::array({second}));
  ASSERT_TRUE(Reaches(2, HeldLease::PHASE_RUNNING));
  server_.With([](auto& s) { EXPECT_EQ(s.held.at(2).device(), "cuda:0"); });
}

TEST_F(DaemonTest, ALostDeviceIsLookedAtWithoutWaitingForTheInterval) {
  WorkerOptions options = OptionsWithGpus({{{"device", "cuda:0"}, {"name", "GPU"}, {"uuid", "GPU-0"}}});
  options.probe_interval_s = 3'600;
  Begin(options);
  server_.Want(OnDevice(Assignment(1, {{"exit", 47}}), 0, 16));
  ASSERT_TRUE(Finished(1));
  int64_t attempt = 1;  // given back until the probe has answered
  EXPECT_TRUE(Eventually([&] {
    server_.Want(OnDevice(Assignment(++attempt, {{"steps", 1}}), 0, 16));
    return Finished(static_cast<size_t>(attempt)) && Last().outcome() == FinishRequest::OUTCOME_DONE;
  }));
}

// It may need another CUDA than the built-in one, of which alone the probe knows.
TEST_F(DaemonTest, ADriverTooOldForATrainerOfOnesOwnTakesNoDeviceOutOfService) {
  WorkerOptions options = OptionsWithGpus({{{"device", "cuda:0"}, {"name", "GPU"}}});
  server_.Want(OnDevice(Assignment(1, {{"exit", 49}}), 0, 16));
  Begin(options);
  ASSERT_TRUE(Finished(1));
  EXPECT_EQ(Last().outcome(), FinishRequest::OUTCOME_DRIVER_TOO_OLD);
  server_.Want(OnDevice(Assignment(2, {{"steps", 1}}), 0, 16));
  ASSERT_TRUE(Finished(2));
  EXPECT_EQ(Last().outcome(), FinishRequest::OUTCOME_DONE) << Last().message();
  server_.With([](auto& s) { EXPECT_TRUE(s.faults.empty()); });
}

TEST_F(DaemonTest, DevicesThatAreNotWholeAtTheStartAreToldSo) {
  Begin(OptionsWithGpus({{{"device", "cuda:0"}, {"name", "GPU"}, {"fault", "driver_too_old: update the driver"}}}));
  ASSERT_TRUE(Eventually([&] {
    return server_.With([](auto& s) { return s.faults.count(0) && s.faults.at(0).starts_with("driver_too_old: "); });
  }));
}

TEST_F(DaemonTest, ANewAttemptOfARunWaitsForTheOldOnesEnd) {
  server_.Want(Assignment(1, {{"forever", true}, {"pause_s", 0.02}}));
  WorkerOptions options = Options();
  options.slots = 2;
  Begin(options);
  ASSERT_TRUE(Reaches(1, HeldLease::PHASE_RUNNING, 3));
  const pid_t pid = TrainerPid(1);
  server_.With([&](auto& s) {
    s.desired.clear();
    s.desired[2] = Assignment(2, {{"steps", 1}}, 1);
  });
  ASSERT_TRUE(Finished(1));
  EXPECT_TRUE(Gone(pid));
  EXPECT_EQ(Last().attempt_id(), 2);
  EXPECT_GE(Last().last_step(), 3) << "resumed from what the old one left";
}

TEST_F(DaemonTest, RankZeroTellsWhereTheOthersMeet) {
  v1::Assignment assignment = Rank(0, {{"forever", true}, {"pause_s", 0.02}, {"rendezvous", "somewhere:1"}});
  assignment.set_one_worker(true);
  server_.Want(assignment);
  Begin(Options());
  ASSERT_TRUE(Eventually([&] {
    return server_.With([](auto& s) { return s.held.count(1) && s.held.at(1).rendezvous() == "somewhere:1"; });
  }));
  const auto run_json = common::ReadJsonFile(scratch_ / "work/runs/1/run.json");
  ASSERT_TRUE(run_json.ok());
  const Json execution = (*run_json)["execution"];
  EXPECT_EQ(execution["rank"], 0);
  EXPECT_EQ(execution["ranks"], 2);
  EXPECT_EQ(execution["listen"], "127.0.0.1");
  EXPECT_EQ(execution["rendezvous"], (scratch_ / "work/runs/1/rendezvous").string());
}

TEST_F(DaemonTest, AnAttemptOfOneRankHearsNothingOfRanks) {
  server_.Want(Assignment(1, {{"forever", true}, {"pause_s", 0.02}}));
  Begin(Options());
  ASSERT_TRUE(Reaches(1, HeldLease::PHASE_RUNNING));
  const auto run_json = common::ReadJsonFile(scratch_ / "work/runs/1/run.json");
  ASSERT_TRUE(run_json.ok());
  for (const char* member : {"rank", "ranks", "listen", "rendezvous"})
    EXPECT_FALSE((*run_json)["execution"].contains(member)) << member;
}

TEST_F(DaemonTest, AnotherRankGetsTheRendezvousAndOnlyItsLogsAndEndCount) {
  v1::Assignment assignment = Rank(1, {{"steps", 5}, {"checkpoint_every", 1}});
  auto* checkpoint = assignment.mutable_spec()->mutable_checkpoint();
  checkpoint->set_name("checkpoint");
  checkpoint->add_files()->set_sha256(std::string(64, 'a'));  // nobody has it: it is not asked for
  assignment.mutable_spec()->set_checkpoint_step(3);
  server_.Want(assignment);
  WorkerOptions options = Options();
  options.address = "here.example";
  Begin(options);
  ASSERT_TRUE(Reaches(FakeCoordinator::Key(1, 1), HeldLease::PHASE_RUNNING));
  const auto run_json = common::ReadJsonFile(scratch_ / "work/runs/1.rank-1/run.json");
  ASSERT_TRUE(run_json.ok());
  EXPECT_EQ((*run_json)["execution"]["listen"], "here.example");
  EXPECT_FALSE((*run_json)["execution"].contains("resume"));
  server_.With([](auto& s) { s.desired.at(FakeCoordinator::Key(1, 1)).set_rendezvous("somewhere:1"); });
  ASSERT_TRUE(Finished(1));
  EXPECT_EQ(Last().outcome(), FinishRequest::OUTCOME_DONE) << Last().message();
  EXPECT_EQ(Last().rank(), 1);
  EXPECT_EQ(Last().outputs_size(), 0);
  server_.With([](auto& s) {
    EXPECT_TRUE(s.metrics.empty());
    EXPECT_TRUE(s.checkpoints.empty());
    EXPECT_THAT(s.logs.at("rank 1 stdout"), ::testing::HasSubstr("met somewhere:1"));
    EXPECT_EQ(s.logs.count("stdout"), 0u);
  });
}

TEST_F(DaemonTest, ALostPeerIsToldAsSuch) {
  v1::Assignment assignment = Rank(1, {{"steps", 1}, {"exit_of_others", 46}});
  assignment.set_rendezvous("somewhere:1");
  server_.Want(assignment);
  Begin(Options());
  ASSERT_TRUE(Finished(1));
  EXPECT_EQ(Last().outcome(), FinishRequest::OUTCOME_PEER_LOST);
  EXPECT_EQ(Last().exit_code(), 46);
  EXPECT_EQ(Last().rank(), 1);
}

TEST_F(DaemonTest, WhateverRankItWasTellsWhatMemoryDidNotHold) {
  v1::Assignment assignment = Rank(1, {{"steps", 1}, {"does_not_fit", 12}, {"exit_of_others", 45}});
  assignment.set_rendezvous("somewhere:1");
  server_.Want(assignment);
  Begin(Options());
  ASSERT_TRUE(Finished(1));
  EXPECT_EQ(Last().outcome(), FinishRequest::OUTCOME_OUT_OF_MEMORY);
  EXPECT_EQ(Last().micro_batch(), 12);
}

TEST_F(DaemonTest, BothRanksOfAGangRunSideBySideAndADroppedOneDiesAtOnce) {
  const Json run{{"forever", true}, {"pause_s", 0.02}, {"stubborn", true}};
  server_.Want(Rank(0, run));
  v1::Assignment second = Rank(1, run);
  second.set_rendezvous("somewhere:1");
  server_.Want(second);
  WorkerOptions options = Options();
  options.slots = 2;
  options.grace_s = 3'600;
  Begin(options);
  ASSERT_TRUE(Reaches(1, HeldLease::PHASE_RUNNING, 1));
  ASSERT_TRUE(Reaches(FakeCoordinator::Key(1, 1), HeldLease::PHASE_RUNNING));
  server_.With([](auto& s) { s.desired.erase(FakeCoordinator::Key(1, 1)); });
  EXPECT_TRUE(
      Eventually([&] { return server_.With([](auto& s) { return s.held.count(FakeCoordinator::Key(1, 1)) == 0; }); }));
  server_.With([](auto& s) { EXPECT_EQ(s.held.count(1), 1u); });
  EXPECT_FALSE(std::filesystem::exists(scratch_ / "work/runs/1.rank-1/run.json")) << "nothing goes on from it";
}

TEST_F(DaemonTest, AnswersGoOnAfterARefusedResult) {
  server_.With([](auto& s) { s.accept = false; });
  server_.Want(Assignment(1, {{"steps", 1}}));
  Begin(Options());
  ASSERT_TRUE(Finished(1));
  server_.With([](auto& s) { s.accept = true; });
  server_.Want(Assignment(2, {{"steps", 1}}));
  ASSERT_TRUE(Finished(2));
  EXPECT_EQ(Last().attempt_id(), 2);
}

}  // namespace
}  // namespace allometry::worker
