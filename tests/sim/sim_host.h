#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "coordinator/core/core.h"
#include "tests/sim/invariants.h"
#include "tests/sim/world.h"

namespace allometry::sim {

class SimWorker;

// The machine of the coordinator: the shipped core, scheduler and store behind a network that loses, delays and
// doubles. A crash drops the process between any two events; the database stays.
class SimHost : public coordinator::Outbox {
 public:
  SimHost(World& world, std::filesystem::path database, const scheduler::TestHooks& hooks);
  ~SimHost() override;

  // Carries a request there (lost, delayed or doubled on the way).
  void Send(const std::function<void(coordinator::Core&)>& request);
  // Wraps a caller so that the reply takes the way back.
  template <typename T>
  coordinator::Reply<T> Back(std::function<void(common::Result<T>)> caller);

  void SendOrders(int64_t worker_id, v1::SyncResponse response) override;
  void WatchReady(int64_t) override {}

  void AddWorker(SimWorker* worker) { workers_.push_back(worker); }
  coordinator::Core* core() { return core_.get(); }
  Invariants& invariants() { return invariants_; }
  // Looks once more, also at what costs too much to look at after every event.
  void CheckAll();

 private:
  void Start();
  void Crash();
  void Take(const std::function<void(coordinator::Core&)>& request);
  void ScheduleCommit();
  void Commit();
  void ScheduleTick();
  void MaybeCrash();

  World& world_;
  std::filesystem::path database_;
  scheduler::TestHooks hooks_;
  Invariants invariants_;
  std::unique_ptr<coordinator::Core> core_;
  std::vector<SimWorker*> workers_;
  int incarnation_ = 0;
  bool commit_scheduled_ = false;
  bool disk_was_full_ = false;
  int64_t tick_at_ms_ = 0;
};

template <typename T>
coordinator::Reply<T> SimHost::Back(std::function<void(common::Result<T>)> caller) {
  return [this, caller = std::move(caller)](common::Result<T> result) {
    if (world_.Fault(0.05)) return;
    world_.After(world_.Between(1, 300), [caller, result = std::move(result)] { caller(result); });
  };
}

}  // namespace allometry::sim
