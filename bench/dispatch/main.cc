// What dispatching costs: a coordinator as a process of its own, simulated workers over real gRPC on loopback,
// everything committed with synchronous=FULL.
//
//   bench_dispatch [--cells 10000] [--workers 10] [--slots 16] [--large 100000] [--data FOLDER] [--output FILE]
//
// Prints one JSON object. CPU is the coordinator's process alone, from the first lease to the last result; `large`
// submits a sweep that nobody runs, for its memory and for the time of submitting and listing.

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <stdexcept>
#include <thread>

#include "allometry/v1/sweep_service.grpc.pb.h"
#include "bench/dispatch/process.h"
#include "bench/dispatch/toy_worker.h"
#include "common/clock.h"
#include "common/files.h"
#include "common/json.h"
#include "common/machine.h"
#include "common/sha256.h"
#include "common/version.h"
#include "coordinator/server/server.h"

namespace allometry::bench {
namespace {

namespace fs = std::filesystem;
using common::Json;

struct Options {
  int64_t cells = 10'000;
  int workers = 10;
  int slots = 16;
  int64_t large = 100'000;
  fs::path data;
  fs::path output;
};

Options ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--cells")
      options.cells = std::stoll(value);
    else if (name == "--workers")
      options.workers = std::stoi(value);
    else if (name == "--slots")
      options.slots = std::stoi(value);
    else if (name == "--large")
      options.large = std::stoll(value);
    else if (name == "--data")
      options.data = value;
    else if (name == "--output")
      options.output = value;
    else
      throw std::runtime_error("unknown option '" + name + "'");
  }
  if (argc % 2 == 0) throw std::runtime_error("every option takes a value");
  if (options.cells < 100 || options.workers < 1 || options.slots < 1) throw std::runtime_error("too small to measure");
  return options;
}

// Before any thread or gRPC in this process: the child becomes the coordinator and never returns.
pid_t ForkCoordinator(const fs::path& data) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  coordinator::CoordinatorOptions options;
  options.data_dir = data;
  auto server = coordinator::CoordinatorServer::Start(options);
  if (!server) {
    std::cerr << server.error().message << '\n';
    std::_Exit(1);
  }
  int signal = 0;
  ::sigwait(&stop, &signal);
  (*server)->Stop();
  std::_Exit(0);
}

std::string WaitForAddress(const fs::path& data, pid_t pid) {
  for (;;) {
    if (::waitpid(pid, nullptr, WNOHANG) != 0) throw std::runtime_error("the coordinator did not start");
    if (auto endpoint = coordinator::ReadEndpoint(data)) return endpoint->address;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

// `cells` cells of a trainer of one's own: a hundred sizes, the rest seeds.
v1::SubmitRequest ToySweep(const std::string& name, int64_t cells) {
  v1::SubmitRequest request;
  request.set_request_uuid("bench-" + name);
  v1::SweepSpec* spec = request.mutable_spec();
  spec->set_name(name);
  spec->set_trainer(name);
  spec->mutable_data()->add_text("corpus.txt");
  spec->add_architectures()->set_name("toy");
  constexpr int64_t kSizes = 100;
  for (int64_t i = 0; i < kSizes; ++i) {
    v1::SizeSpec* size = spec->add_sizes();
    size->set_name("n" + std::to_string(i));
    (*size->mutable_options()->mutable_fields())["order"].set_number_value(static_cast<double>(i));
  }
  for (int64_t i = 0; i < cells / kSizes; ++i) spec->add_seeds(static_cast<uint64_t>(i));
  spec->mutable_pretraining()->set_steps(100);
  v1::ManifestFile* file = request.add_manifest();
  file->set_role("corpus");
  file->set_name("corpus.txt");
  file->set_bytes(6);
  file->set_sha256(common::Sha256Hex("corpus"));
  return request;
}

class Bench {
 public:
  Bench(const Options& options, pid_t pid, const std::string& address)
      : options_(options), pid_(pid), address_(address) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    const auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
    sweeps_ = v1::SweepService::NewStub(channel);
    cluster_ = v1::ClusterService::NewStub(channel);
  }

  Json Run() {
    Json out = {{"benchmark", "dispatch"},
                {"date", common::FormatUtc(common::UnixMillis())},
                {"commit", common::kCommit},
                {"build_type", common::kBuildType},
                {"cpu", common::CpuModel()},
                {"cores", std::thread::hardware_concurrency()},
                {"workers", options_.workers},
                {"slots_per_worker", options_.slots}};
    out["dispatch"] = Dispatch();
    if (options_.large > 0) out["large"] = Large();
    return out;
  }

 private:
  double Submit(const std::string& name, int64_t cells) {
    const double start = NowSeconds();
    grpc::ClientContext context;
    v1::SubmitResponse response;
    Check(sweeps_->Submit(&context, ToySweep(name, cells), &response), "Submit");
    if (response.new_runs() != cells)
      throw std::runtime_error("Submit made " + std::to_string(response.new_runs()) + " runs");
    return NowSeconds() - start;
  }

  Json Dispatch() {
    const int64_t cells = options_.cells / 100 * 100;
    const double submit_s = Submit("toy", cells);
    std::atomic<int64_t> finished = 0;
    std::vector<std::unique_ptr<ToyWorker>> workers;
    for (int i = 0; i < options_.workers; ++i) {
      workers.push_back(std::make_unique<ToyWorker>(address_, i, options_.slots, &finished));
    }
    const std::vector<int64_t> batches_before = Batches();
    const CpuTime cpu_before = CpuTimeOf(pid_);
    const double start = NowSeconds();
    for (auto& worker : workers) worker->Start();
    while (finished < cells) {
      for (auto& worker : workers) {
        if (!worker->error().empty()) throw std::runtime_error(worker->error());
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    const double wall_s = NowSeconds() - start;
    const CpuTime cpu_after = CpuTimeOf(pid_);
    const std::vector<int64_t> batches_after = Batches();
    workers.clear();
    const double user_s = cpu_after.user_s - cpu_before.user_s, system_s = cpu_after.system_s - cpu_before.system_s;
    const auto runs = static_cast<double>(cells);
    return {{"cells", cells},
            {"submit_s", submit_s},
            {"wall_s", wall_s},
            {"runs_per_s", runs / wall_s},
            {"coordinator_user_s", user_s},
            {"coordinator_system_s", system_s},
            {"coordinator_cpu_ms_per_run", (user_s + system_s) * 1000 / runs},
            {"batch_histogram_from_2_pow_i", Difference(batches_after, batches_before)}};
  }

  // A trainer that no worker has: the runs stay pending. What a first sweep of that size leaves (SQLite's page cache
  // among it) is there before; what the second adds is the memory of its runs.
  Json Large() {
    const int64_t cells = options_.large / 100 * 100;
    Submit("absent-before", cells);
    const int64_t bytes_before = SettledResidentBytes();
    const double submit_s = Submit("absent", cells);
    const int64_t bytes_after = SettledResidentBytes();
    const double start = NowSeconds();
    int64_t listed = 0;
    std::string page;
    do {
      v1::ListRequest request;
      request.set_sweep("absent");
      request.set_page_size(10'000);
      request.set_page_token(page);
      grpc::ClientContext context;
      v1::ListResponse response;
      Check(sweeps_->List(&context, request, &response), "List");
      listed += response.cells_size();
      page = response.next_page_token();
    } while (!page.empty());
    if (listed != cells) throw std::runtime_error("List gave " + std::to_string(listed) + " cells");
    return {{"cells", cells},
            {"submit_s", submit_s},
            {"list_s", NowSeconds() - start},
            {"resident_bytes", bytes_after},
            {"resident_bytes_per_pending_run",
             static_cast<double>(bytes_after - bytes_before) / static_cast<double>(cells)}};
  }

  // Freed memory goes back a moment after the reply.
  int64_t SettledResidentBytes() const {
    int64_t bytes = ResidentBytesOf(pid_);
    for (int same = 0; same < 5;) {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      const int64_t now = ResidentBytesOf(pid_);
      same = now == bytes ? same + 1 : 0;
      bytes = now;
    }
    return bytes;
  }

  std::vector<int64_t> Batches() {
    grpc::ClientContext context;
    v1::StatusResponse response;
    Check(cluster_->Status(&context, {}, &response), "Status");
    return {response.batch_histogram().begin(), response.batch_histogram().end()};
  }

  static std::vector<int64_t> Difference(std::vector<int64_t> after, const std::vector<int64_t>& before) {
    for (size_t i = 0; i < std::min(after.size(), before.size()); ++i) after[i] -= before[i];
    return after;
  }

  static void Check(const grpc::Status& status, const char* call) {
    if (!status.ok()) throw std::runtime_error(std::string(call) + ": " + status.error_message());
  }

  Options options_;
  pid_t pid_;
  std::string address_;
  std::unique_ptr<v1::SweepService::Stub> sweeps_;
  std::unique_ptr<v1::ClusterService::Stub> cluster_;
};

int Main(int argc, char** argv) {
  Options options = ParseOptions(argc, argv);
  const bool temporary = options.data.empty();
  if (temporary) {
    std::string pattern = (fs::temp_directory_path() / "bench_dispatch_XXXXXX").string();
    options.data = ::mkdtemp(pattern.data());
  }
  const pid_t pid = ForkCoordinator(options.data);
  int code = 0;
  try {
    const std::string text = Bench(options, pid, WaitForAddress(options.data, pid)).Run().dump(2) + "\n";
    std::cout << text;
    if (!options.output.empty())
      if (auto written = common::WriteFileAtomically(options.output, text); !written)
        throw std::runtime_error(written.error().message);
  } catch (const std::exception& e) {
    std::cerr << "bench_dispatch: " << e.what() << '\n';
    code = 1;
  }
  ::kill(pid, SIGTERM);
  ::waitpid(pid, nullptr, 0);
  if (temporary) fs::remove_all(options.data);
  return code;
}

}  // namespace
}  // namespace allometry::bench

int main(int argc, char** argv) {
  try {
    return allometry::bench::Main(argc, argv);
  } catch (const std::exception& e) {
    std::cerr << "bench_dispatch: " << e.what() << '\n';
    return 2;
  }
}
