#include "tests/sim/sim_host.h"

#include "tests/sim/sim_worker.h"

namespace allometry::sim {

using coordinator::Core;

SimHost::SimHost(World& world, std::filesystem::path database, const scheduler::TestHooks& hooks)
    : world_(world), database_(std::move(database)), hooks_(hooks), invariants_(world) {
  Start();
  MaybeCrash();
}

SimHost::~SimHost() = default;

void SimHost::Start() {
  coordinator::store::Store::Options store_options;
  store_options.durable = false;  // the machine never loses power here, only the process dies
  store_options.fail_commit = [this] { return disk_was_full_ = world_.Fault(0.02); };
  auto store = coordinator::store::Store::Open(database_, store_options);
  if (!store) return world_.Violate("the database does not open: " + store.error().message);
  coordinator::CoreOptions options;
  options.now_boot_ms = [this] { return world_.now_ms(); };
  options.now_unix_ms = [this] { return 1'700'000'000'000 + world_.now_ms(); };
  options.has_blob = [this](const std::string&) { return !world_.Fault(0.05); };
  options.lease_ttl_ms = kLeaseTtlMs;
  options.cells_per_transaction = 7;
  options.hooks = hooks_;
  auto core = Core::Open(std::move(store).value(), options, this);
  if (!core) {
    if (disk_was_full_)
      return world_.After(1'000, [this] {
        if (!core_) Start();
      });
    return world_.Violate("the core does not start: " + core.error().message);
  }
  core_ = std::move(core).value();
  commit_scheduled_ = false;
  tick_at_ms_ = 0;
  invariants_.AfterCommit(*core_, false);
  ScheduleTick();
}

void SimHost::Crash() {
  core_.reset();
  ++incarnation_;
  world_.After(world_.Between(10, 20'000), [this] {
    if (!core_) Start();
  });
}

void SimHost::MaybeCrash() {
  world_.After(world_.Between(20'000, 200'000), [this] {
    if (!world_.faults()) return;
    Crash();
    MaybeCrash();
  });
}

void SimHost::Send(const std::function<void(Core&)>& request) {
  const int copies = world_.Fault(0.05) ? 0 : world_.Fault(0.05) ? 2 : 1;
  for (int i = 0; i < copies; ++i)
    world_.After(world_.Between(1, world_.Fault(0.02) ? 90'000 : 300), [this, request] { Take(request); });
}

void SimHost::Take(const std::function<void(Core&)>& request) {
  if (!core_) return;
  request(*core_);
  ScheduleCommit();
}

void SimHost::ScheduleCommit() {
  if (commit_scheduled_) return;
  commit_scheduled_ = true;
  world_.After(world_.Between(0, 20), [this, incarnation = incarnation_] {
    if (incarnation == incarnation_) Commit();
  });
}

void SimHost::Commit() {
  commit_scheduled_ = false;
  disk_was_full_ = false;
  const common::Status committed = core_->CommitBatch();
  if (!committed && !disk_was_full_) world_.Violate("a commit failed: " + committed.error().message);
  invariants_.AfterCommit(*core_, committed.ok());
  if (core_->HasQueued()) ScheduleCommit();
  ScheduleTick();
}

void SimHost::ScheduleTick() {
  const auto wake = core_->NextWakeBootMs();
  if (!wake || (tick_at_ms_ > world_.now_ms() && tick_at_ms_ <= *wake)) return;
  tick_at_ms_ = std::max(*wake, world_.now_ms() + 100);
  world_.After(tick_at_ms_ - world_.now_ms(), [this, incarnation = incarnation_, at = tick_at_ms_] {
    if (incarnation != incarnation_ || at != tick_at_ms_) return;
    tick_at_ms_ = 0;
    Take([](Core& core) { core.Tick(); });
  });
}

void SimHost::SendOrders(int64_t worker_id, v1::SyncResponse response) {
  if (world_.Fault(0.1)) return;
  world_.After(world_.Between(1, 300), [this, worker_id, response] {
    for (SimWorker* worker : workers_)
      if (worker->id() == worker_id) worker->OnOrders(response);
  });
}

void SimHost::CheckAll() {
  if (core_) invariants_.CheckAll(*core_);
}

}  // namespace allometry::sim
