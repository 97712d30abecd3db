#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <memory>
#include <thread>

#include "cli/client.h"
#include "cli/export_rows.h"
#include "cli/interrupt.h"
#include "cli/study.h"
#include "cli/sweep_input.h"
#include "cli/trainers.h"
#include "cli/verb.h"
#include "cli/view.h"
#include "common/files.h"
#include "common/ids.h"
#include "coordinator/server/server.h"
#include "worker/daemon/worker.h"

namespace allometry::cli::verb_run {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string file, data_dir;
  std::string data_root;
  std::vector<std::string> trainers;
  int slots = 0, threads = 0;
  int64_t grace_s = 30, checkpoint_interval_s = 30;
  bool no_devices = false, no_kernels = false, update = false;
};

// Everything that is said of the daemons' doings goes into a file: the screen belongs to the live view.
void LogToFile(const fs::path& path) {
  try {
    spdlog::set_default_logger(spdlog::basic_logger_mt("allo", path.string()));
    spdlog::flush_on(spdlog::level::info);
  } catch (const spdlog::spdlog_ex&) {
    spdlog::set_level(spdlog::level::off);  // no log is better than no run
  }
}

common::Status CheckTrainer(const v1::SweepSpec& spec, const Trainers& trainers) {
  const std::string name = spec.trainer().empty() ? "builtin" : spec.trainer();
  if (trainers.contains(name)) return common::Ok();
  if (name == "builtin")
    return common::NotFound("allo-trainer is not beside allo in " + ProgramFolder().string() +
                            ": build it, or name one with --trainer builtin=COMMAND");
  std::vector<std::string> names;
  for (const auto& [known, command] : trainers) names.push_back(known);
  const std::string near = common::NearestName(name, names);
  return common::InvalidArgument("the sweep asks for the trainer '" + name + "'" +
                                 (near.empty() ? "" : " (did you mean '" + near + "'?)") +
                                 ": allow it with --trainer " + name + "=COMMAND");
}

// A slot a processor, as a rule with one thread: models that fit a CPU gain more from company than from threads.
int DefaultSlots() { return static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 64u)); }

worker::WorkerOptions WorkerOptionsOf(const Options& options, const coordinator::CoordinatorServer& server,
                                      const Trainers& trainers) {
  worker::WorkerOptions worker;
  worker.coordinator = server.address();
  worker.cluster_id = server.cluster_id();
  worker.name = "local";
  worker.work_directory = server.data_dir() / "worker";
  worker.slots = options.slots > 0 ? options.slots : DefaultSlots();
  worker.threads_per_slot = options.threads;
  worker.trainers = trainers;
  if (!options.data_root.empty()) worker.data_roots = {options.data_root};
  worker.grace_s = options.grace_s;
  worker.checkpoint_interval_s = options.checkpoint_interval_s;
  worker.use_devices = !options.no_devices;
  worker.use_kernels = !options.no_kernels;
  return worker;
}

// Stops with checkpoints; a second interrupt kills. The coordinator must still run, or the results of the last seconds
// have nowhere to go.
void StopWorker(worker::Worker& worker) {
  const int seen = InterruptCount();
  worker.Stop();
  while (worker.running() && InterruptCount() == seen) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  if (worker.running()) worker.Kill();
  if (const auto left = worker.Join(); !left) std::cerr << "allo: " << left.error().message << '\n';
}

void PrintPlaces(const coordinator::CoordinatorServer& server, const fs::path& exports, const std::string& sweep) {
  const std::string database = (server.data_dir() / "allometry.db").string();
  std::cout << "\nDatabase: " << database << "\nExports:  " << exports.string()
            << "/{cells,scores,metrics}.csv, slopes.json, pareto.json\nMore:     allo slopes " << sweep << " --db "
            << database << ", allo pareto " << sweep << " --db " << database << '\n';
}

common::Status WriteStudy(Client& client, const std::string& sweep, const fs::path& folder) {
  ALLO_RETURN_IF_ERROR(WriteExports(client, sweep, folder));
  v1::SlopesRequest slopes;
  slopes.add_sweeps(sweep);
  if (const auto answer = AskSlopes(client, slopes); answer && !answer->json().empty())
    ALLO_RETURN_IF_ERROR(common::WriteFileAtomically(folder / "slopes.json", answer->json() + "\n"));
  v1::ParetoRequest pareto;
  pareto.add_sweeps(sweep);
  if (const auto answer = AskPareto(client, pareto); answer && !answer->json().empty())
    ALLO_RETURN_IF_ERROR(common::WriteFileAtomically(folder / "pareto.json", answer->json() + "\n"));
  return common::Ok();
}

// Watches the sweep until it ends, an interrupt comes or the worker leaves for a reason of its own.
common::Result<WatchEnd> Follow(Client& client, const std::string& sweep, const worker::Worker& worker) {
  const auto view = ProgressView::ForStandardOutput();
  return WatchSweep(client, sweep, *view, [&] { return InterruptCount() > 0 || !worker.running(); });
}

int End(const Options& options, const coordinator::CoordinatorServer& server, Client& client, const std::string& sweep,
        WatchEnd end) {
  if (InterruptCount() > 0) {
    std::cout << "Stopped; checkpoints are kept. Go on with: allo run " << options.file
              << (options.data_root.empty() ? "" : " --data-root " + options.data_root)
              << (options.data_dir.empty() ? "" : " --data " + options.data_dir) << '\n';
    return kExitInterrupted;
  }
  if (end == WatchEnd::kInterrupted) return common::ExitCodeOf(common::ErrorCode::kFailedPrecondition);
  PrintStudy(client, sweep);
  const fs::path exports = server.data_dir() / "exports" / sweep;
  if (const auto written = WriteStudy(client, sweep, exports); !written) return Fail(written.error());
  PrintPlaces(server, exports, sweep);
  if (end == WatchEnd::kWithFailures)
    std::cout << "Some cells failed: allo list " << sweep << " --state failed,diverged; allo retry " << sweep << '\n';
  return ExitCodeOf(end);
}

int RunSweep(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const SweepInput input, ReadSweepInput(options.file, options.data_root));
  ALLO_ASSIGN_OR_FAIL(const Trainers trainers, ParseTrainers(options.trainers));
  if (const auto known = CheckTrainer(input.spec, trainers); !known) return Fail(known.error());
  coordinator::CoordinatorOptions settings;
  settings.data_dir = DataDirOf(options.data_dir);
  CountInterrupts();
  ALLO_ASSIGN_OR_FAIL(const auto server, coordinator::CoordinatorServer::Start(settings));
  LogToFile(server->data_dir() / "allo.log");
  Client client(server->address(), "", "");
  ALLO_ASSIGN_OR_FAIL(const v1::SubmitResponse submitted, Submit(client, input, options.update));
  std::cout << SubmittedText(submitted) << "; coordinator at " << server->address() << std::endl;
  worker::Worker worker(WorkerOptionsOf(options, *server, trainers));
  if (const auto started = worker.Start(); !started) return Fail(started.error());
  const auto end = Follow(client, input.spec.name(), worker);
  if (InterruptCount() > 0) std::cout << "Stopping: trainers write checkpoints; Ctrl-C again kills them." << std::endl;
  StopWorker(worker);
  if (!end) return Fail(end.error());
  const int code = End(options, *server, client, input.spec.name(), *end);
  server->Stop();
  return code;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand(
      "run",
      "Run a sweep on this machine from beginning to end: coordinator, worker, results. Run again, it continues");
  verb->add_option("sweep", options->file, "Sweep file (YAML)")->required();
  AddDataRootOption(verb, &options->data_root);
  AddDataOption(verb, &options->data_dir);
  verb->add_option("--slots", options->slots, "Cells at once (default: one a processor; with GPUs: one each)")
      ->check(CLI::Range(1, 1024));
  verb->add_option("--threads", options->threads, "CPU threads per slot (default: processors / slots)")
      ->check(CLI::Range(1, 1024));
  verb->add_option("--trainer", options->trainers, "NAME=COMMAND that the sweep may use; may be repeated");
  verb->add_option("--grace", options->grace_s, "Seconds from asking a trainer to stop to killing it")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--checkpoint-interval", options->checkpoint_interval_s, "Seconds between checkpoints")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_flag("--no-devices", options->no_devices, "Use no GPU");
  verb->add_flag("--no-kernels", options->no_kernels,
                 "On GPUs use LibTorch's own operations, also where the trainer's kernels prove right");
  verb->add_flag("--update", options->update, "Replace the spec of a sweep of this name; results are kept");
  OnRun(verb, [options] { return RunSweep(*options); });
}

const VerbRegistration kRun(10, Declare);

}  // namespace
}  // namespace allometry::cli::verb_run
