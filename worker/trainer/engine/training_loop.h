#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "worker/trainer/checkpoint/checkpoint_writer.h"
#include "worker/trainer/distributed/rank_group.h"
#include "worker/trainer/engine/device_batches.h"
#include "worker/trainer/engine/divergence.h"
#include "worker/trainer/engine/events.h"
#include "worker/trainer/engine/exit_code.h"
#include "worker/trainer/engine/model_state.h"
#include "worker/trainer/engine/run_config.h"
#include "worker/trainer/engine/training_step.h"

namespace allometry::trainer {

// One evaluation of the model as it stands.
struct Evaluation {
  double score = 0;                      // what `select: best` compares; higher is better
  std::map<std::string, double> values;  // named as in the metric series, e.g. "valid/loss"
  common::Json detail;                   // kept with the best evaluation: the entries of `scores`
};

// What a kind of run brings to the loop.
struct LoopWork {
  BatchPump::Maker make_batch;  // a pure function of the step, called on another thread
  // `last`: no training follows, so that what is told once only may be measured too. Returns nothing if a stop was
  // requested meanwhile.
  std::function<std::optional<Evaluation>(ModelState&, bool last)> evaluate;
  // With several ranks: whether all of them evaluate, and `evaluate` makes one result of it; else rank 0 does it alone.
  bool evaluates_together = false;
  // If given, called once at rank 0 with the selected weights, in evaluation mode, when no training follows. False: a
  // stop was requested meanwhile.
  std::function<bool(ModelState&)> finish;
  bool select_best = false;
  int64_t early_stop = 0;    // with select_best: evaluations without a better score that end the training; 0 = none
  int64_t input_length = 0;  // input tokens of one sequence, for throughput
};

struct LoopParts {
  const TrainingConfig& config;
  const Execution& execution;
  at::Device device;
  std::string precision;
  ModelState& state;
  Optimizer& optimizer;
  CheckpointStore& checkpoints;
  EventWriter& events;
  std::filesystem::path run_directory;  // checkpoint paths in events are relative to it
  int64_t micro_batch = 0;              // rows at once; 0: as execution says, or all
  RankGroup* group = nullptr;           // null: this is the only rank
  bool sharded = false;                 // gradients are there for a rank's own tensors only
  StepGraphMaker graphs = nullptr;      // null: steps are taken one operation at a time
};

// What a finished run knows of its training.
struct TrainingSummary {
  double device_seconds = 0;  // spent in steps, over all attempts whose work survived
  double data_wait_seconds = 0;
  double checkpoint_seconds = 0;  // that training stood still for checkpoints, in this attempt
  int64_t resumed_step = 0;
  int64_t steps = 0;  // that were made: fewer than configured after an early stop
  int64_t target_tokens = 0;
  Evaluation final;  // of the selected weights, which the model then holds
  int64_t selected_step = 0;
  int64_t micro_batch = 0;     // at the end: halved whenever memory did not suffice
  int64_t graph_launches = 0;  // steps of this attempt that were launched as a graph
};

// The training loop: steps, gradient accumulation, metrics, evaluations, checkpoints, stopping, divergence. Step n is a
// function of the weights and optimiser state after step n-1, the run's seed and n only, so that a run that was stopped
// or killed goes on bit-equal (on a CPU with the same thread count).
//
// Several ranks divide each batch's rows, add up their gradients, and all do the same with the sums, so that their
// weights stay bit-equal. Losses, stops and times for checkpoints are agreed on. Rank 0 alone reads and writes
// checkpoints; any number of ranks may go on from one. PeerLost comes out of every function.
//
// Checkpoints are written while training goes on (CheckpointWriter): the one of a stop and those before the end of the
// run stand when Run returns, one that is under way at an error when the loop is destroyed.
class TrainingLoop {
 public:
  TrainingLoop(LoopParts parts, LoopWork work);

  // Resumes if it can, trains to the last step, evaluates. kDone: `summary` is complete and the model holds the
  // selected weights.
  Ending Run();
  const TrainingSummary& summary() const { return summary_; }

 private:
  using Clock = std::chrono::steady_clock;

  // Decisions that all ranks must share.
  struct Agreement {
    bool stop = false, checkpoint = false;
  };
  Agreement Agree();
  bool is_first() const { return !parts_.group || parts_.group->is_first(); }
  std::optional<Evaluation> Evaluate(bool last);
  std::optional<Evaluation> EvaluateWhole(bool last);
  Ending FinishWork();

  Ending RunToAnEnd();
  void TellWhatDidNotFit();
  void LeaveTogether() const;
  std::optional<Checkpoint> LoadCheckpoint();
  std::optional<Ending> Resume();
  std::optional<Ending> WriteStart();
  void TakeStep(DeviceBatches& batches);
  std::optional<Ending> AfterStep();
  // Reads what the steps since the last reading left on the device, if anything depends on it or `always`.
  std::optional<Ending> ReadLosses(bool always);
  std::vector<double> UnreadValues() const;
  std::optional<Ending> WriteMetrics();
  std::optional<Ending> WriteProgress(bool always);
  std::optional<Ending> EvaluateNow(bool last);
  bool CheckpointIsDue() const;
  std::optional<Ending> SaveCheckpoint();
  // Waits until the checkpoint that is being written stands, and takes its error; the period to the next begins.
  std::optional<Ending> FinishCheckpoint();
  // Before an optimiser's step.
  void HoldForCheckpoint();
  bool GathersState() const;
  common::Status TellCheckpoint(int64_t step, const std::filesystem::path& folder) const;
  Ending Stop();
  std::optional<Ending> SelectWeights();
  void RestoreCheckpoint(const Checkpoint& checkpoint);
  common::Json StateToJson() const;

  bool IsLogStep() const { return step_ % log_every_ == 0 || step_ == parts_.config.steps; }
  bool IsEvaluationStep() const;
  // Whether no step is left, or the last evaluations say that none is worth it.
  bool IsOver() const;
  double SecondsSince(Clock::time_point start) const;

  LoopParts parts_;
  LoopWork work_;
  DivergenceDetector detector_;
  TrainingSummary summary_;
  Agreement agreed_;
  TrainingStep training_step_;
  int64_t log_every_;
  int64_t evaluate_every_;
  int64_t step_ = 0;       // finished steps
  int64_t read_step_ = 0;  // steps whose loss has been read from the device
  // Of the steps read_step_ + 1 ... step_: mean losses, and the means that layers report.
  std::vector<at::Tensor> unread_losses_;
  std::vector<std::map<std::string, MeanSums>> unread_means_;
  at::Tensor unread_norm_;    // of the last step's gradients; undefined: not measured
  double interval_loss_ = 0;  // sum since the last metric point
  int64_t interval_steps_ = 0;
  std::map<std::string, std::pair<double, double>> interval_means_;  // sums and counts since the last metric point
  double last_loss_ = 0;
  double gradient_norm_ = 0;
  int64_t evaluated_step_ = 0;
  std::optional<Evaluation> last_evaluation_, best_evaluation_;
  int64_t best_step_ = 0;
  std::map<std::string, at::Tensor> best_weights_;  // select_best only
  double stood_still_ = 0;                          // for the last checkpoint, seconds
  Clock::time_point last_checkpoint_, last_progress_;
  int64_t last_checkpoint_step_ = -1, progress_step_ = 0;
  CheckpointWriter writer_;  // last: its end is waited for before anything that it uses goes
};

}  // namespace allometry::trainer
