#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <memory>
#include <thread>

#include "cli/client.h"
#include "cli/interrupt.h"
#include "cli/trainers.h"
#include "cli/verb.h"
#include "coordinator/server/data_directory.h"
#include "worker/daemon/worker.h"

namespace allometry::cli::verb_worker {
namespace {

struct Options {
  worker::WorkerOptions worker;
  std::string work_directory;
  std::vector<std::string> trainers, data_roots;
  bool no_devices = false, no_kernels = false;
  ConnectOptions connect;
};

// On the coordinator's own machine its endpoint is enough.
common::Status FindCoordinator(const ConnectOptions& connect, worker::WorkerOptions* options) {
  options->coordinator = connect.coordinator;
  options->token = connect.token;
  options->ca_file = connect.ca_file;
  if (const char* token = std::getenv("ALLOMETRY_TOKEN"); token && options->token.empty()) options->token = token;
  if (!options->coordinator.empty()) return common::Ok();
  auto endpoint = coordinator::ReadEndpoint(DataDirOf(connect.data_dir));
  if (!endpoint)
    return common::NotFound("no coordinator is running on " + DataDirOf(connect.data_dir) +
                            ": name one with --coordinator host:port");
  options->coordinator = endpoint->address;
  if (options->token.empty()) options->token = endpoint->token;
  return common::Ok();
}

// First interrupt: checkpoint and leave; second: kill the trainers.
int RunUntilLeft(worker::Worker& worker) {
  int seen = 0;
  while (worker.running()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    if (InterruptCount() == seen) continue;
    seen = InterruptCount();
    if (seen == 1) {
      std::cerr << "allo: trainers write checkpoints and stop; once more kills them\n";
      worker.Stop();
    } else {
      worker.Kill();
    }
  }
  const common::Status left = worker.Join();
  if (!left) return Fail(left.error());
  return seen > 0 ? kExitInterrupted : kExitOk;
}

int Work(Options& options) {
  if (const auto found = FindCoordinator(options.connect, &options.worker); !found) return Fail(found.error());
  ALLO_ASSIGN_OR_FAIL(options.worker.trainers, ParseTrainers(options.trainers));
  options.worker.work_directory = options.work_directory.empty()
                                      ? std::filesystem::path(DataDirOf(options.connect.data_dir)) / "worker"
                                      : std::filesystem::path(options.work_directory);
  options.worker.data_roots.assign(options.data_roots.begin(), options.data_roots.end());
  options.worker.use_devices = !options.no_devices;
  options.worker.use_kernels = !options.no_kernels;
  CountInterrupts();
  worker::Worker worker(options.worker);
  if (const auto started = worker.Start(); !started) return Fail(started.error());
  std::cerr << "allo: working for " << options.worker.coordinator << " in " << options.worker.work_directory.string()
            << '\n';
  return RunUntilLeft(worker);
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("worker", "Run cells for a coordinator until told to stop");
  verb->add_option("--name", options->worker.name,
                   "Name that people see (default: the host and a mark of the work folder)");
  verb->add_option("--work", options->work_directory,
                   "Folder for runs and files (default: worker in the data directory)");
  verb->add_option("--slots", options->worker.slots, "Cells at once (with GPUs: one each)")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  verb->add_option("--threads", options->worker.threads_per_slot, "CPU threads per slot (default: processors / slots)")
      ->check(CLI::Range(0, 1024));
  verb->add_option("--trainer", options->trainers, "NAME=COMMAND that sweeps may use; may be repeated");
  verb->add_option("--data-root", options->data_roots, "Folder to look for raw files in; may be repeated");
  verb->add_option("--idle-timeout", options->worker.idle_timeout_s,
                   "Leave after so many seconds without work (0: stay)")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--grace", options->worker.grace_s, "Seconds from asking a trainer to stop to killing it")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option(
          "--address", options->worker.address,
          "Name or address of this machine under which trainers on other workers reach those here, for runs on "
          "devices of several workers")
      ->capture_default_str();
  verb->add_flag("--no-devices", options->no_devices, "Use no GPU");
  verb->add_flag("--no-kernels", options->no_kernels,
                 "On GPUs use LibTorch's own operations, also where the trainer's kernels prove right");
  verb->add_option("--probe-interval", options->worker.probe_interval_s,
                   "Seconds between looks at GPUs that are out of service (30)")
      ->check(CLI::Range(1, 86'400));
  AddConnectOptions(verb, &options->connect);
  OnRun(verb, [options] { return Work(*options); });
}

const VerbRegistration kWorker(40, Declare);

}  // namespace
}  // namespace allometry::cli::verb_worker
