#pragma once

#include <set>
#include <string>
#include <vector>

#include "coordinator/core/cell.h"
#include "tests/sim/sim_host.h"
#include "tests/sim/world.h"

namespace allometry::sim {

// Users: submit two sweeps that share cells, then cancel, submit again, pause, resume, retry and drain at random; in
// the end let everything run.
class SimClient {
 public:
  SimClient(World& world, SimHost& host, std::vector<std::string> workers);
  // Faults are over: everything wanted is wanted again.
  void LetEverythingRun();
  const std::set<std::string>& acknowledged_sweeps() const { return acknowledged_; }

 private:
  void Submit(const std::string& sweep, const std::string& uuid);
  void Resume(const std::string& sweep);
  void Meddle();
  void MeddleWith(const std::string& sweep);

  World& world_;
  SimHost& host_;
  std::vector<std::string> workers_;
  std::set<std::string> acknowledged_;
};

}  // namespace allometry::sim
