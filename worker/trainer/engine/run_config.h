#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "arch/architecture.h"
#include "arch/objective.h"
#include "common/json.h"
#include "common/result.h"
#include "worker/trainer/data/sequences.h"
#include "worker/trainer/optim/optimizer_options.h"
#include "worker/trainer/optim/schedule.h"

namespace allometry::trainer {

// What run.json says, typed and checked. Defaults are documented in docs/training.md.

// `execution`: where and how, without influence on the result (precision apart, which is recorded).
struct Execution {
  std::string run_id;
  int64_t attempt = 0;
  std::string device = "cpu";  // "cpu", "cuda" or "cuda:N"
  int64_t threads = 1;
  std::string precision = "auto";  // "auto", "fp32", "bf16"; "fp64" for tests on a CPU
  int64_t micro_batch = 0;         // sequences of one rank at once; 0 = as many as memory holds (engine/memory_plan.h)
  std::map<std::string, std::filesystem::path> inputs;  // parent's name -> folder of its outputs
  std::map<std::string, std::filesystem::path> files;   // SHA-256 -> path
  std::filesystem::path resume;                         // empty: none
  bool keep_final = true;                               // leave the output `model`
  double checkpoint_interval_s = 30;
  // Compute activations twice and keep fewer: equal results, less memory. Not said: where the memory estimate says so.
  std::optional<bool> activation_checkpointing;
  // The ranks that train together, and how they meet: rank 0 writes its word to the file `rendezvous` and as an event,
  // the others wait for that file.
  int64_t rank = 0, ranks = 1;
  std::filesystem::path rendezvous;
  std::string listen = "127.0.0.1";  // address that ranks listen on; "0.0.0.0" is all
  double device_share = 1;           // of a GPU's memory, that is this run's
  int64_t peer_timeout_s = 1800;     // of a rank that is dialled or waited for and says nothing
  std::string sharding = "auto";     // "none"; "optimizer": optimiser states and gradients; "auto": if memory needs it
  std::string experts = "auto";      // "whole"; "divided": among the ranks; "auto": divided where states are sharded
  bool kernels = false;              // GPUs compute by the module of kernels (docs/kernels.md) where it is there
  bool graphs = true;                // with kernels: steps are CUDA graphs
  bool deterministic = false;        // GPUs: LibTorch's own operations without atomics too, at some cost
  int64_t log_every = 0;             // steps per metric point; 0 = a hundredth of all steps, at most 100
};

struct ModelConfig {
  std::string architecture;
  arch::Shape shape;
  common::Json options;  // complete
};

struct OptimizationConfig {
  OptimizerOptions optimizer;
  Schedule schedule;
  double clip_norm = 0;  // 0 = none
};

struct DivergenceConfig {
  double loss_spike = 2.0;  // nats above the best window; 0 = only NaN and infinity count
  int64_t window_steps = 20;
};

struct TaskConfig {
  std::string name;
  int64_t max_train = 0;  // examples; 0 = all
  int64_t max_valid = 0;
  std::string decoding;  // "greedy" or "rank"; empty: the run's, "rank" only where there are choices
};

// What pretraining and fine-tuning have in common.
struct TrainingConfig {
  ModelConfig model;
  arch::Lengths lengths;  // of one example as configured: a model may be built for them
  OptimizationConfig optimization;
  DivergenceConfig divergence;
  int64_t batch_sequences = 0;
  int64_t steps = 0;
  double dropout = 0;
  double z_loss = 0;  // coefficient; trained on, not reported
  uint64_t seed = 0;
  int64_t evaluate_every_steps = 0;  // 0 = at the end only
};

struct PretrainConfig {
  TrainingConfig training;
  arch::ObjectiveSettings objective;
  Join join = Join::kEndMark;
  int64_t evaluation_examples = 512;
};

struct FinetuneConfig {
  TrainingConfig training;
  std::vector<TaskConfig> tasks;
  int64_t mixture_cap = 0;     // examples of one task that count for its rate; 0 = all
  int64_t input_length = 128;  // at most what the model is built for: longer inputs are cut and counted
  int64_t target_length = 8;
  std::string select = "last";  // or "best"
  // Training examples of each task that are held out to select by, at most a tenth; 0: selected on validation itself.
  int64_t holdout = 0;
  int64_t early_stop = 0;           // evaluations without a better score that end the training; 0 = none
  std::string decoding = "greedy";  // or "rank": the most likely of the choices is the answer
  bool shuffle_labels = false;      // train on permuted labels: a control
};

// The file as a whole. `run` is kept as given: it identifies checkpoints and is handed to the data library.
struct RunConfig {
  std::string kind;  // "prepare", "pretrain" or "finetune"
  common::Json run;
  std::string run_sha256;  // of run's canonical JSON
  Execution execution;
};

// All errors are kInvalidArgument and name the member by its path, what is wrong and what is allowed.
common::Result<RunConfig> ReadRunConfig(const std::filesystem::path& path);
common::Result<RunConfig> ParseRunConfig(const common::Json& file);
// An architecture with its shape and options, which are completed; `where` is its path for messages. `numerics_version`
// 0 means the current one.
common::Result<ModelConfig> ParseModel(const common::Json& model, const std::string& where, int64_t numerics_version);
common::Result<PretrainConfig> ParsePretrain(const common::Json& run);
common::Result<FinetuneConfig> ParseFinetune(const common::Json& run);

// The shape as an object with the members of run.model.shape.
common::Json ShapeToJson(const arch::Shape& shape);

}  // namespace allometry::trainer
