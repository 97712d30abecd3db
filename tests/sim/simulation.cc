#include "tests/sim/simulation.h"

#include <unistd.h>

#include <deque>
#include <filesystem>

#include "tests/sim/sim_client.h"
#include "tests/sim/sim_host.h"
#include "tests/sim/sim_worker.h"

namespace allometry::sim {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kFaultsMs = 600'000;
constexpr int64_t kRestMs = 1'200'000;
constexpr int64_t kLookEveryMs = 5'000;

// In memory where the system has a place for it.
class DatabaseFile {
 public:
  DatabaseFile() {
    const fs::path base = access("/dev/shm", W_OK) == 0 ? fs::path("/dev/shm") : fs::temp_directory_path();
    std::string name = (base / "allometry_sim_XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~DatabaseFile() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  fs::path path() const { return folder_ / "allometry.db"; }

 private:
  fs::path folder_;
};

void CheckChunks(World& world, const fs::path& path, const std::deque<SimWorker>& workers) {
  auto db = std::move(coordinator::store::Database::Open(path, {.read_only = true})).value();
  for (const SimWorker& worker : workers)
    for (const auto& [attempt, sequence] : worker.acknowledged_chunks())
      if (!(*db)("SELECT 1 FROM metrics WHERE attempt_id = ? AND sequence = ?", attempt, sequence).Next())
        world.Violate("an acknowledged metric chunk of attempt " + std::to_string(attempt) + " is lost");
}

void CheckSweeps(World& world, coordinator::Core& core, const SimClient& client) {
  for (const std::string& sweep : client.acknowledged_sweeps())
    if (!core.Get(sweep)) world.Violate("the acknowledged sweep '" + sweep + "' is lost");
}

}  // namespace

Outcome Simulate(uint64_t seed, const scheduler::TestHooks& hooks) {
  DatabaseFile file;
  World world(seed);
  SimHost host(world, file.path(), hooks);
  std::deque<SimWorker> workers;
  for (const char* name : {"one", "two"}) workers.emplace_back(world, host, name, 2);
  workers.emplace_back(world, host, "three", 2, "Pretend 100");
  SimClient client(world, host, {"one", "two", "three"});

  world.After(kFaultsMs, [&] {
    world.EndFaults();
    for (SimWorker& worker : workers) worker.StayUp();
    client.LetEverythingRun();
  });
  bool at_rest = false;
  std::function<void()> look = [&] {
    at_rest = host.core() != nullptr && host.invariants().AllAtRest(*host.core());
    if (!at_rest) world.After(kLookEveryMs, look);
  };
  world.After(kFaultsMs + 120'000, look);
  while (!at_rest && world.violation().empty() && world.now_ms() < kFaultsMs + kRestMs && world.Step()) {
  }
  if (!at_rest && world.violation().empty())
    world.Violate("it does not come to rest: " +
                  (host.core() ? host.invariants().Unrest(*host.core()) : "no coordinator"));
  host.CheckAll();
  Outcome outcome;
  if (host.core() != nullptr) {
    CheckSweeps(world, *host.core(), client);
    for (const auto& run : host.core()->scheduler_state().runs) {
      outcome.done += run.state == scheduler::RunState::kDone;
      outcome.failed += run.state == scheduler::RunState::kFailed;
      outcome.attempts += run.generation;
    }
  }
  CheckChunks(world, file.path(), workers);
  for (const SimWorker& worker : workers) outcome.chunks += static_cast<int64_t>(worker.acknowledged_chunks().size());
  outcome.violation = world.violation();
  return outcome;
}

}  // namespace allometry::sim
