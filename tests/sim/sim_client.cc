#include "tests/sim/sim_client.h"

#include "common/json.h"

namespace allometry::sim {
namespace {

using coordinator::Cell;
using coordinator::Core;

constexpr int64_t kAskAgainMs = 5'000;

Cell NewCell(const std::string& name, v1::RunKind kind, int64_t steps, double flops, const std::string& fate,
             std::vector<coordinator::CellParent> parents) {
  Cell cell;
  cell.name = name;
  cell.kind = kind;
  cell.trainer = "builtin";
  cell.precision = "auto";
  cell.identity = "identity of " + name;
  cell.run_json = common::Json{{"fate", fate}, {"steps", steps}, {"batch_sequences", 32}}.dump();
  cell.parents = std::move(parents);
  cell.costs.set_training_flops(flops);
  cell.costs.set_steps(steps);
  return cell;
}

// Pretraining cells [first, last], each with a fine-tuning, all on one prepared data set. Every fate comes up.
std::vector<Cell> CellsOf(int first, int last) {
  // Of the workers' four CPU slots and two GPUs.
  static constexpr int64_t kDevices[] = {1, 2, 1, 4, 1, 3, 0, 2, 1};
  static constexpr int64_t kSlotsPerGpu[] = {2, 1, 4, 1, 16, 1, 8, 1, 2};
  // Of a device's part of 16 GB, less its context, half may be filled: the first needs an eighth, the second a half.
  static constexpr int64_t kGpuBytes[] = {650'000'000, 3'000'000'000, 0};
  static constexpr const char* kFates[] = {"ok", "ok", "poison", "memory", "config", "diverge", "ok", "memory", "ok"};
  std::vector<Cell> cells{NewCell("prepare", v1::RUN_KIND_PREPARE, 5, 0, "ok", {})};
  const std::string data = cells[0].identity;
  for (int i = first; i <= last; ++i) {
    const std::string name = "c" + std::to_string(i);
    cells.push_back(
        NewCell(name, v1::RUN_KIND_PRETRAIN, 10 + 7 * (i % 4), 1e6 * (1 + i * 5 % 9), kFates[i % 9], {{"data", data}}));
    cells.back().devices = kDevices[i % 9];
    cells.back().most_devices = 32;
    cells.back().slots_per_gpu = kSlotsPerGpu[i % 9];
    cells.back().costs.set_gpu_whole_bytes(kGpuBytes[i % 3]);
    cells.push_back(
        NewCell(name + "-ft", v1::RUN_KIND_FINETUNE, 5, 1e5, "ok", {{"data", data}, {"model", cells.back().identity}}));
    cells.back().slots_per_gpu = 4;
  }
  return cells;
}

v1::SubmitRequest RequestFor(const std::string& sweep, const std::string& uuid) {
  v1::SubmitRequest request;
  request.set_request_uuid(uuid);
  request.mutable_spec()->set_name(sweep);
  if (sweep == "second") {
    request.mutable_spec()->mutable_scheduling()->set_policy("fifo");
    request.mutable_spec()->mutable_scheduling()->set_priority(1);
    request.mutable_spec()->mutable_budget()->set_flops(1.8e7);
  }
  return request;
}

}  // namespace

SimClient::SimClient(World& world, SimHost& host, std::vector<std::string> workers)
    : world_(world), host_(host), workers_(std::move(workers)) {
  Submit("first", world_.Uuid());
  world_.After(world_.Between(0, 60'000), [this] { Submit("second", world_.Uuid()); });
  Meddle();
}

// Asks again under the same uuid until it is answered.
void SimClient::Submit(const std::string& sweep, const std::string& uuid) {
  auto answered = std::make_shared<bool>(false);
  host_.Send([this, sweep, uuid, answered](Core& core) {
    auto caller = host_.Back<v1::SubmitResponse>([answered](auto response) { *answered = *answered || response.ok(); });
    core.Submit(RequestFor(sweep, uuid), sweep == "first" ? CellsOf(0, 5) : CellsOf(3, 8),
                [this, sweep, caller](common::Result<v1::SubmitResponse> response) {
                  if (response) acknowledged_.insert(sweep);
                  caller(std::move(response));
                });
  });
  world_.After(kAskAgainMs, [this, sweep, uuid, answered] {
    if (!*answered) Submit(sweep, uuid);
  });
}

void SimClient::Meddle() {
  world_.After(world_.Between(5'000, 40'000), [this] {
    if (!world_.faults()) return;
    MeddleWith(world_.Chance(0.5) ? "first" : "second");
    Meddle();
  });
}

void SimClient::MeddleWith(const std::string& sweep) {
  const int64_t what = world_.Between(0, 6);
  if (what <= 1) return Submit(sweep, world_.Uuid());
  if (what == 2) return Resume(sweep);
  const bool kill = world_.Chance(0.5);
  const std::string cell = world_.Chance(0.5) ? "c" + std::to_string(world_.Between(0, 8)) : "";
  const std::string worker =
      workers_[static_cast<size_t>(world_.Between(0, static_cast<int64_t>(workers_.size()) - 1))];
  host_.Send([=](Core& core) {
    if (what == 3) {
      v1::CancelRequest request;
      request.set_sweep(sweep);
      if (!cell.empty()) request.add_cells(cell);
      core.Cancel(request, nullptr);
    } else if (what == 4) {
      v1::PauseRequest request;
      request.set_sweep(sweep);
      request.set_kill_running(kill);
      core.Pause(request, nullptr);
    } else if (what == 5) {
      v1::RetryRequest request;
      request.set_sweep(sweep);
      core.Retry(request, nullptr);
    } else {
      v1::DrainWorkerRequest request;
      request.set_worker(worker);
      request.set_now(kill);
      core.DrainWorker(request, nullptr);
    }
  });
}

void SimClient::Resume(const std::string& sweep) {
  v1::ResumeRequest request;
  request.set_sweep(sweep);
  host_.Send([request](Core& core) { core.Resume(request, nullptr); });
}

void SimClient::LetEverythingRun() {
  // Twice: a pause or a cancellation from before may still be on its way.
  for (int64_t delay_ms : {0, 100'000})
    for (const char* sweep : {"first", "second"})
      world_.After(delay_ms, [this, sweep] {
        Submit(sweep, world_.Uuid());
        Resume(sweep);
      });
}

}  // namespace allometry::sim
