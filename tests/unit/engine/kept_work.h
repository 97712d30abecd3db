#pragma once

#include <functional>

#include "worker/trainer/engine/step_graph.h"

namespace allometry::trainer {

// A graph without a device: does the recorded work at every launch, with what it was given when it was recorded. A step
// that went by a number on the host would be the recorded one for ever.
class KeptWork : public StepGraph {
 public:
  void Capture(const std::function<void()>& work) override { work_ = work; }
  void Launch() override { work_(); }

 private:
  std::function<void()> work_;
};

}  // namespace allometry::trainer
