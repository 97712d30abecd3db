#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>

#include "allometry/v1/worker_service.pb.h"
#include "tests/sim/sim_host.h"
#include "tests/sim/world.h"

namespace allometry::sim {

inline constexpr int64_t kDeviceBytes = 16'000'000'000;

// A worker by the protocol of worker_service.proto, with trainers that only count steps. Dies, hangs, is cut off,
// drains.
class SimWorker {
 public:
  // `device`: what each slot is, where it is no CPU.
  SimWorker(World& world, SimHost& host, std::string name, int slots, std::string device = "");

  int64_t id() const { return id_; }
  const std::string& name() const { return name_; }
  void OnOrders(const v1::SyncResponse& orders);
  // Chunks whose arrival was acknowledged: (attempt, sequence).
  const std::set<std::pair<int64_t, int64_t>>& acknowledged_chunks() const { return acknowledged_chunks_; }
  // What a dying process had not yet said does not count; faults end, it stays up.
  void StayUp() {
    cut_until_ms_ = 0;
    unaware_ = false;
  }

 private:
  using RankId = std::pair<int64_t, int64_t>;  // attempt and rank
  struct Held {
    v1::Assignment assignment;
    int64_t steps = 0;
    int64_t start_step = 0;
    int64_t started_ms = 0;
    int64_t step_ms = 0;
    int64_t end_step = 0;  // where `outcome` happens
    v1::FinishRequest::Outcome outcome = v1::FinishRequest::OUTCOME_DONE;
    bool finishing = false;
    v1::FinishRequest finish;
  };
  struct Chunk {
    v1::MetricChunk message;
    uint64_t first_number = 0;  // of the first sync that carried it
  };

  void StartProcess();
  void Die();
  void MaybeDie();
  void CutOff();
  void Beat();
  void Register();
  void Sync(bool leaving = false);
  void KillBeforeTheLeaseEnds();
  void Begin(const v1::Assignment& assignment);
  void DecideFate(Held& held, const v1::RunSpec& spec);
  void DecideFateOfRank(Held& held);
  void DecideFateOfDevice(Held& held);
  void EndTrainer(RankId id, v1::FinishRequest::Outcome outcome);
  void SendFinish(RankId id);
  void ReportCheckpoint(const Held& held);
  int64_t StepOf(const Held& held) const;
  bool Cut() const { return world_.now_ms() < cut_until_ms_; }
  bool IsBroken(int device) const {
    const auto broken = broken_until_ms_.find(device);
    return !device_.empty() && broken != broken_until_ms_.end() && world_.now_ms() < broken->second;
  }
  template <typename Message>
  void Fill(const Held& held, Message* message) const;

  World& world_;
  SimHost& host_;
  std::string name_;
  int slots_;
  std::string device_;
  int process_ = 0;  // counts its lives
  bool up_ = false;
  bool leaving_ = false;
  int64_t id_ = 0;
  std::string uuid_;
  uint64_t number_ = 0;
  uint64_t applied_ = 0;
  int64_t safe_since_ms_ = 0;  // when the last acknowledged message was sent
  int64_t cut_until_ms_ = 0;
  bool unaware_ = false;
  std::map<int, int64_t> broken_until_ms_;  // devices
  std::map<uint64_t, int64_t> sent_ms_;
  std::map<RankId, Held> held_;
  std::set<RankId> forgotten_;
  std::map<std::string, int64_t> run_folders_;  // identity -> step of the checkpoint left there
  std::map<std::pair<int64_t, int64_t>, Chunk> chunks_;
  std::set<std::pair<int64_t, int64_t>> acknowledged_chunks_;
};

}  // namespace allometry::sim
