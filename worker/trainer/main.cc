// allo-trainer: the built-in trainer. docs/trainer-contract.md says what it reads, writes and returns.
#include <c10/util/Exception.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string>

#include "common/version.h"
#include "worker/trainer/data/data_tools.h"
#include "worker/trainer/distributed/tcp_mesh.h"
#include "worker/trainer/engine/device.h"
#include "worker/trainer/engine/kernel_check.h"
#include "worker/trainer/engine/run_kinds.h"
#include "worker/trainer/engine/stop_signal.h"
#include "worker/trainer/exchange/checkpoint_tools.h"
#include "worker/trainer/kernels/tensor_kernels.h"

namespace allometry::trainer {
namespace {

constexpr int kUsageExitCode = 2;

constexpr char kHelp[] = R"(allo-trainer: the built-in trainer of Allometry

  allo-trainer --config run.json   train: prepare data, pretrain or fine-tune, as the file says
  allo-trainer --probe [--check-kernels [cuda:N]]
                                   print devices and versions as one JSON
                                   object, with how the kernels fare on GPUs
  allo-trainer --check-kernels cuda:N
                                   compare kernels and graphs there with
                                   LibTorch's own operations
  allo-trainer data ...            data tools; 'allo-trainer data --help' lists them
  allo-trainer checkpoint ...      show, export and import trained models; 'allo-trainer checkpoint --help'
  allo-trainer --version
  allo-trainer --help

Exit codes of --config: 0 done, 40 stopped on request with a checkpoint,
42 configuration error, 43 data error, 44 diverged, 45 out of memory, 46 another
rank was lost, 47 the device is lost, 48 full of other programs, 49 its driver
too old, 50 another rank says nothing; anything else is a crash. The format of
run.json and of the events appended to $ALLOMETRY_EVENTS is described in
docs/trainer-contract.md.
)";

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

Ending RunFile(const char* path) {
  InstallStopSignals();
  auto config = ReadRunConfig(path);
  if (!config) return {ExitCode::kConfigurationError, config.error().message};
  PrepareProcess(config->execution.threads);
  kernels::UseModule(config->execution.kernels);
  auto events = EventWriter::Open(Environment("ALLOMETRY_EVENTS"));
  if (!events) return {ExitCode::kCrash, events.error().message};
  const std::string directory = Environment("ALLOMETRY_RUN_DIR");
  return RunKind({*config, *events, directory.empty() ? "." : directory});
}

// The only place that catches: LibTorch reports by exceptions, and so do broken invariants.
Ending RunGuarded(const char* path) {
  try {
    return RunFile(path);
  } catch (const DeviceUnusable& e) {
    return {e.code, e.what()};
  } catch (const CollectiveTimeout& e) {
    return {ExitCode::kCollectiveTimeout, e.what()};
  } catch (const PeerLost& e) {
    return {ExitCode::kPeerLost, e.what()};
  } catch (const MeetingCancelled& e) {
    return {ExitCode::kStopped, e.what()};
  } catch (const c10::OutOfMemoryError& e) {
    return {ExitCode::kOutOfMemory, e.what_without_backtrace()};
  } catch (const std::bad_alloc&) {
    return {ExitCode::kOutOfMemory, "the process is out of memory"};
  } catch (const std::exception& e) {
    return {IsOutOfMemory(e) ? ExitCode::kOutOfMemory : ExitCode::kCrash, e.what()};
  }
}

int Main(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  if (verb == "--config" && argc == 3) {
    const Ending ending = RunGuarded(argv[2]);
    if (!ending.reason.empty()) std::fprintf(stderr, "allo-trainer: %s\n", ending.reason.c_str());
    return static_cast<int>(ending.code);
  }
  if (verb == "data") return DataMain(argc - 1, argv + 1);
  if (verb == "checkpoint") return CheckpointMain(argc - 1, argv + 1);
  if (verb == "--probe") {
    const bool check_kernels = (argc == 3 || argc == 4) && std::string(argv[2]) == "--check-kernels";
    common::Json report = ProbeReport();
    if (check_kernels) AddKernelChecks(&report["devices"], argc == 4 ? argv[3] : "");
    if (argc == 2 || check_kernels) return std::puts(report.dump(2).c_str()) < 0;
  }
  if (verb == "--check-kernels" && argc == 3) return PrintKernelCheck(argv[2]);
  if (verb == "--version") return std::printf("allo-trainer %s (%s)\n", common::kVersion, common::kCommit) < 0;
  if (verb == "--help" || verb == "-h") return std::fputs(kHelp, stdout) < 0;
  std::fputs(kHelp, stderr);
  return kUsageExitCode;
}

}  // namespace
}  // namespace allometry::trainer

int main(int argc, char** argv) {
  const int code = allometry::trainer::Main(argc, argv);
  std::fflush(nullptr);
  // Libraries' destructors take a tenth of a second and protect nothing: all files are closed or written through.
  std::_Exit(code);
}
