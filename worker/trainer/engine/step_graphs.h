#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "worker/trainer/engine/device_batches.h"
#include "worker/trainer/engine/step_graph.h"
#include "worker/trainer/layers/side_terms.h"

namespace allometry::trainer {

// What a step leaves on the device.
struct StepResult {
  at::Tensor loss;                        // scalar: this rank's share of the mean over the batch's targets
  std::map<std::string, MeanSums> means;  // that layers report
  at::Tensor gradient_norm;               // scalar, before clipping; undefined: not measured
};

// The steps of one run as graphs, one for each shape of a batch: the first step of a shape is taken as it is, the
// second recorded and launched, every further one launched. For one thread, on one stream.
class StepGraphs {
 public:
  struct Step {
    // A step as a function of the batch's tensors, its rows and device memory alone: all else that changes from step to
    // step, the batch's number of targets too, lies there.
    std::function<StepResult(const DeviceBatch&)> compute;
    // Around recording. The last one returns memory that lives as long as the graph; it is called after an error too,
    // and then `abandon`, for what was done half.
    std::function<void()> begin_capture;
    std::function<at::Tensor()> end_capture;
    std::function<void()> abandon;
    // After recording, on every rank: whether it failed on any. What ranks exchange is in the graphs of all or of none:
    // NCCL asks for that.
    std::function<bool(bool failed)> failed_on_any_rank;
    // Before a launch: from here on the step is taken.
    std::function<void()> launching;
  };
  StepGraphs(StepGraphMaker make, Step step) : make_(std::move(make)), step_(std::move(step)) {}

  // Results are the caller's own. An error of a step that is taken as it is comes out; one of recording leaves the
  // shape without a graph, with a line on standard error.
  StepResult Take(const DeviceBatch& batch);
  void Clear() { kept_.clear(); }  // the step has become another one
  int64_t launches() const { return launches_; }

 private:
  static constexpr size_t kMostShapes = 8;  // further ones go without

  struct Kept {
    DeviceBatch batch;  // where the graph reads
    StepResult result;  // where it writes
    at::Tensor memory;
    std::unique_ptr<StepGraph> graph;  // null: not recorded yet, or `fails`
    bool fails = false;
  };
  void Meet(const std::vector<int64_t>& shape);
  void Capture(Kept& kept);

  StepGraphMaker make_;
  Step step_;
  std::map<std::vector<int64_t>, Kept> kept_;  // by shape
  int64_t launches_ = 0;
  bool told_ = false;  // that there are more shapes than graphs
};

}  // namespace allometry::trainer
