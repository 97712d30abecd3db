#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "arch/architecture.h"
#include "common/json.h"
#include "worker/trainer/engine/memory_plan.h"
#include "worker/trainer/engine/training_loop.h"

namespace allometry::trainer {

// What every kind of run is given: its file, where its events go, and its folder.
struct RunContext {
  const RunConfig& config;
  EventWriter& events;
  std::filesystem::path run_directory;
};

// The parts of one training run, from the device to the checkpoint store, and what comes out of it.
class TrainingSession {
 public:
  // Opens the device, waits for the other ranks, and builds the model and its optimiser. `training` and `context` must
  // outlive the session. kInvalidArgument says what the machine or the optimiser cannot do. PeerLost and
  // MeetingCancelled come from ranks, DeviceUnusable from the device.
  static common::Result<std::unique_ptr<TrainingSession>> Open(const RunContext& context,
                                                               const TrainingConfig& training);

  // Puts a parent's weights (its output `model`) in place of the initial ones. The parent's architecture, shape and
  // options must be this run's.
  common::Status LoadParent(const std::filesystem::path& folder);

  Ending Train(LoopWork work);

  // The metrics of the contract that any training has. `lengths` are one example's.
  std::map<std::string, double> Metrics(arch::Lengths lengths) const;
  // Writes the output folder `model` (model.safetensors in float32 and model.json) unless execution.keep_final is off,
  // and returns the `outputs` of the result event.
  common::Result<common::Json> WriteModel() const;
  // Facts for the result's report: resumed step, selected step, micro-batch, precision, waiting for data.
  common::Json Report() const;

  ModelState& state() { return *state_; }
  const at::Device& device() const { return device_; }
  RankGroup* group() const { return group_.get(); }                // null: this is the only rank
  bool is_first() const { return !group_ || group_->is_first(); }  // the rank that leaves what the run leaves
  int64_t micro_batch() const { return plan_.micro_batch; }
  const TrainingSummary& summary() const { return summary_; }

 private:
  TrainingSession(const RunContext& context, const TrainingConfig& training, at::Device device, std::string precision);
  void RequireRoom();
  common::Status JoinRanks();
  void AgreeOnKernels() const;
  common::Status BuildOptimizer();
  void BuildModel();
  bool IsSharded() const;
  bool DividesExperts() const;
  MemoryLimits Limits() const;
  MemoryPlan ChoosePlan() const;
  MemoryPlan ChooseOwnPlan() const;
  StepGraphMaker Graphs() const;
  StepGraphMaker OwnGraphs() const;

  const RunContext& context_;
  const TrainingConfig& training_;
  at::Device device_;
  std::string precision_;
  int64_t room_bytes_ = 0;  // of the device's memory, that this run may plan with
  std::unique_ptr<RankGroup> group_;
  std::unique_ptr<GradientReducer> reducer_;
  std::unique_ptr<ModelState> state_;
  bool sharded_ = false;
  MemoryPlan plan_;
  std::unique_ptr<Optimizer> optimizer_;
  TrainingSummary summary_;
};

// The folder of an input, e.g. "data"; kInvalidArgument if run.json names none, kNotFound if it does not exist.
common::Result<std::filesystem::path> InputFolder(const RunContext& context, const std::string& name);

// Writes the result event; kCrash if that fails.
Ending WriteResult(const RunContext& context, const std::map<std::string, double>& metrics, const common::Json& scores,
                   const common::Json& outputs, const common::Json& report);

// The ending that an error means while a run is set up: an invalid argument is a configuration error, anything else
// about an input is a data error.
Ending EndingOf(const common::Error& error);
// The same for what the data functions say (data/prepare.h).
Ending EndingOfData(const common::Error& error);

}  // namespace allometry::trainer
