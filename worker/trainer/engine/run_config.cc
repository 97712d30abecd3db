#include "worker/trainer/engine/run_config.h"

#include <algorithm>

#include "common/sha256.h"
#include "worker/trainer/engine/object_reader.h"

namespace allometry::trainer {
namespace {

using common::Json;
using common::Result;
using common::Status;

constexpr int64_t kContractVersion = 1;
constexpr int64_t kMany = int64_t{1} << 40;
constexpr double kHuge = 1e300;
const std::vector<std::string> kDecodings = {"greedy", "rank"};

Result<std::map<std::string, std::filesystem::path>> ParsePaths(const Json& value, const std::string& where) {
  std::map<std::string, std::filesystem::path> paths;
  for (const auto& [name, path] : value.items()) {
    if (!path.is_string()) return common::InvalidArgument(where + "." + name + " must be a path, not " + path.dump());
    paths[name] = path.get<std::string>();
  }
  return paths;
}

Status CheckDevice(const std::string& device) {
  const bool numbered = device.rfind("cuda:", 0) == 0 && device.size() > 5 && device.size() < 9 &&
                        device.find_first_not_of("0123456789", 5) == std::string::npos;
  if (device == "cpu" || device == "cuda" || numbered) return common::Ok();
  return common::InvalidArgument("execution.device is '" + device + "': allowed are cpu, cuda and cuda:N");
}

Status ParseRanks(ObjectReader& reader, Execution& execution) {
  execution.ranks = reader.Integer("ranks", 1, 1, 4096);
  execution.rank = reader.Integer("rank", 0, 0, execution.ranks - 1);
  execution.rendezvous = reader.String("rendezvous", "");
  execution.listen = reader.String("listen", execution.listen);
  execution.peer_timeout_s = reader.Integer("peer_timeout_s", execution.peer_timeout_s, 1, 1'000'000);
  execution.sharding = reader.Choice("sharding", "auto", {"auto", "none", "optimizer"});
  execution.experts = reader.Choice("experts", "auto", {"auto", "whole", "divided"});
  if (execution.ranks > 1 && execution.rendezvous.empty())
    return common::InvalidArgument("execution.rendezvous is missing: several ranks meet by that file");
  return common::Ok();
}

Result<Execution> ParseExecution(const Json& value) {
  ObjectReader reader(value, "execution");
  Execution execution;
  execution.run_id = reader.String("run_id", "");
  execution.attempt = reader.Integer("attempt", 0, 0, kMany);
  execution.device = reader.String("device", "cpu");
  execution.threads = reader.Integer("threads", 1, 1, 1024);
  execution.precision = reader.Choice("precision", "auto", {"auto", "fp32", "bf16", "fp64"});
  execution.device_share = reader.Number("device_share", 1.0, 0.01, 1.0);
  execution.micro_batch = reader.Integer("micro_batch", 0, 0, kMany);
  execution.resume = reader.String("resume", "");
  execution.keep_final = reader.Boolean("keep_final", true);
  execution.checkpoint_interval_s = reader.Number("checkpoint_interval_s", 30.0, 0.0, 1e9);
  if (reader.Has("activation_checkpointing"))
    execution.activation_checkpointing = reader.Boolean("activation_checkpointing", false);
  execution.kernels = reader.Boolean("kernels", false);
  execution.graphs = reader.Boolean("graphs", true);
  execution.deterministic = reader.Boolean("deterministic", false);
  execution.log_every = reader.Integer("log_every", 0, 0, kMany);
  ALLO_RETURN_IF_ERROR(ParseRanks(reader, execution));
  const Json& inputs = reader.Raw("inputs", false, "object");
  const Json& files = reader.Raw("files", false, "object");
  // Unknown members are no mistake here: they cannot change the result, and a newer worker may send some.
  for (const auto& [key, unused] : value.items()) reader.Ignore(key);
  ALLO_RETURN_IF_ERROR(reader.Finish());
  ALLO_RETURN_IF_ERROR(CheckDevice(execution.device));
  ALLO_ASSIGN_OR_RETURN(execution.inputs, ParsePaths(inputs, "execution.inputs"));
  ALLO_ASSIGN_OR_RETURN(execution.files, ParsePaths(files, "execution.files"));
  return execution;
}

Result<arch::Shape> ParseShape(const Json& value, const std::string& where) {
  ObjectReader reader(value, where);
  arch::Shape shape;
  shape.encoder_layers = reader.Integer("encoder_layers", {}, 1, 4096);
  shape.decoder_layers = reader.Integer("decoder_layers", {}, 1, 4096);
  shape.d_model = reader.Integer("d_model", {}, 1, 1 << 20);
  shape.d_ff = reader.Integer("d_ff", {}, 1, 1 << 22);
  shape.heads = reader.Integer("heads", {}, 1, 1 << 16);
  shape.d_kv = reader.Integer("d_kv", {}, 1, 1 << 16);
  shape.vocabulary = reader.Integer("vocabulary", {}, 2, 1 << 24);
  ALLO_RETURN_IF_ERROR(reader.Finish());
  return shape;
}

arch::Lengths LongestLengths(const ModelConfig& model) {
  return (*arch::FindArchitecture(model.architecture))->LongestLengths(model.options);
}

Schedule ReadSchedule(ObjectReader& reader, const Schedule& defaults, int64_t steps) {
  Schedule schedule;
  schedule.name = reader.Choice("schedule", defaults.name, {"inverse_sqrt", "constant", "cosine", "wsd"});
  schedule.learning_rate = reader.Number("learning_rate", defaults.learning_rate, 0.0, 1e6);
  schedule.warmup_steps = reader.Integer("warmup_steps", defaults.warmup_steps, 0, kMany);
  const bool decays = schedule.name == "cosine" || schedule.name == "wsd";
  schedule.warmup = reader.Choice("warmup", decays ? "linear" : defaults.warmup, {"hold", "linear"});
  schedule.steps = steps;
  if (decays)
    schedule.final_fraction = reader.Number("final_fraction", schedule.name == "cosine" ? 0.1 : 0.0, 0.0, 1.0);
  if (schedule.name == "wsd") schedule.decay_fraction = reader.Number("decay_fraction", 0.1, 0.0, 1.0);
  return schedule;
}

Result<OptimizationConfig> ParseOptimization(const Json& value, const Schedule& defaults, int64_t steps) {
  ObjectReader reader(value, "run.optimizer");
  OptimizationConfig config;
  config.optimizer.name = reader.Choice("name", "adafactor", {"adafactor", "adamw"});
  config.schedule = ReadSchedule(reader, defaults, steps);
  config.optimizer.weight_decay = reader.Number("weight_decay", 0.0, 0.0, 1e6);
  config.clip_norm = reader.Number("clip_norm", 0.0, 0.0, kHuge);
  if (config.optimizer.name == "adamw") {
    config.optimizer.beta1 = reader.Number("beta1", 0.9, 0.0, 0.999999);
    config.optimizer.beta2 = reader.Number("beta2", 0.999, 0.0, 0.9999999);
    config.optimizer.epsilon = reader.Number("epsilon", 1e-8, 0.0, 1.0);
  }
  ALLO_RETURN_IF_ERROR(reader.Finish());
  return config;
}

Result<DivergenceConfig> ParseDivergence(const Json& value) {
  ObjectReader reader(value, "run.divergence");
  DivergenceConfig config;
  config.loss_spike = reader.Number("loss_spike", config.loss_spike, 0.0, kHuge);
  config.window_steps = reader.Integer("window_steps", config.window_steps, 1, kMany);
  ALLO_RETURN_IF_ERROR(reader.Finish());
  return config;
}

const Json& OrEmpty(const Json& value) {
  static const Json empty = Json::object();
  return value.is_null() ? empty : value;
}

// The members that pretraining and fine-tuning share; their own are read by the caller from the same reader.
struct TrainingDefaults {
  int64_t batch_sequences;
  double dropout;
  Schedule schedule;
};

Result<TrainingConfig> ParseTraining(ObjectReader& reader, const TrainingDefaults& defaults) {
  for (const char* key : {"kind", "trainer", "data", "parent", "identity_version"}) reader.Ignore(key);
  TrainingConfig config;
  config.batch_sequences = reader.Integer("batch_sequences", defaults.batch_sequences, 1, 1 << 20);
  config.steps = reader.Integer("steps", {}, 1, kMany);
  config.dropout = reader.Number("dropout", defaults.dropout, 0.0, 0.99);
  config.z_loss = reader.Number("z_loss", 0.0, 0.0, 1e6);
  config.seed = static_cast<uint64_t>(reader.Integer("seed", 0, 0, int64_t{1} << 53));
  const int64_t numerics_version = reader.Integer("numerics_version", 0, 0, kMany);
  const Json& model = reader.Raw("model", true, "object");
  const Json& optimizer = reader.Raw("optimizer", false, "object");
  const Json& divergence = reader.Raw("divergence", false, "object");
  if (model.is_null()) return reader.Finish().error();
  ALLO_ASSIGN_OR_RETURN(config.model, ParseModel(model, "run.model", numerics_version));
  ALLO_ASSIGN_OR_RETURN(config.optimization, ParseOptimization(OrEmpty(optimizer), defaults.schedule, config.steps));
  ALLO_ASSIGN_OR_RETURN(config.divergence, ParseDivergence(OrEmpty(divergence)));
  return config;
}

Result<arch::ObjectiveSettings> ParseObjective(const Json& value) {
  ObjectReader reader(value, "run.objective");
  arch::ObjectiveSettings o;
  o.name = reader.Choice("name", o.name, {arch::ObjectiveNames().begin(), arch::ObjectiveNames().end()});
  o.input_length = reader.Integer("input_length", o.input_length, 4, 1 << 20);
  if (o.name == "prefix_lm") o.target_length = reader.Integer("target_length", o.input_length, 2, o.input_length);
  if (o.name != "prefix_lm") o.noise_density = reader.Number("noise_density", o.noise_density, 0.001, 0.9);
  if (o.name == "span_corruption")
    o.mean_span_length = reader.Number("mean_span_length", o.mean_span_length, 1.0, 1000.0);
  ALLO_RETURN_IF_ERROR(reader.Finish());
  if (Status possible = arch::CheckObjective(o); !possible)
    return common::InvalidArgument("run.objective: " + possible.error().message);
  return o;
}

Status ParseEvaluation(const Json& value, int64_t* examples, int64_t* every_steps) {
  ObjectReader reader(value, "run.evaluation");
  if (examples) *examples = reader.Integer("examples", *examples, 1, kMany);
  *every_steps = reader.Integer("every_steps", 0, 0, kMany);
  return reader.Finish();
}

Result<std::vector<TaskConfig>> ParseTasks(const Json& value) {
  std::vector<TaskConfig> tasks;
  for (size_t i = 0; i < value.size(); ++i) {
    const Json entry = value[i].is_string() ? Json{{"name", value[i]}} : value[i];
    ObjectReader reader(entry, "run.tasks[" + std::to_string(i) + "]");
    TaskConfig task;
    task.name = reader.String("name", {});
    task.max_train = reader.Integer("max_train", 0, 0, kMany);
    task.max_valid = reader.Integer("max_valid", 0, 0, kMany);
    if (reader.Has("decoding")) task.decoding = reader.Choice("decoding", {}, kDecodings);
    reader.Ignore("numerics_version");
    ALLO_RETURN_IF_ERROR(reader.Finish());
    tasks.push_back(std::move(task));
  }
  if (tasks.empty()) return common::InvalidArgument("run.tasks is empty: name at least one task");
  return tasks;
}

Status ParseMixture(const Json& value, FinetuneConfig& config) {
  ObjectReader reader(value, "run.mixture");
  config.mixture_cap = reader.Integer("cap", 0, 0, kMany);
  return reader.Finish();
}

}  // namespace

Result<ModelConfig> ParseModel(const Json& value, const std::string& where, int64_t numerics_version) {
  ObjectReader reader(value, where);
  ModelConfig model;
  model.architecture = reader.String("architecture", {});
  const Json& shape = reader.Raw("shape", true, "object");
  const Json options = reader.Raw("options", false, "object");
  reader.Ignore("size");  // a name for people
  ALLO_RETURN_IF_ERROR(reader.Finish());
  auto found = arch::FindArchitecture(model.architecture);
  if (!found) return common::InvalidArgument(reader.PathOf("architecture") + ": " + found.error().message);
  const arch::Architecture& architecture = **found;
  if (numerics_version != 0 && numerics_version != architecture.numerics_version())
    return common::InvalidArgument("run.numerics_version is " + std::to_string(numerics_version) +
                                   ", but this trainer computes version " +
                                   std::to_string(architecture.numerics_version()) + " of " + model.architecture +
                                   ": use the trainer of the coordinator's release");
  ALLO_ASSIGN_OR_RETURN(model.shape, ParseShape(shape, reader.PathOf("shape")));
  auto completed = arch::CompleteOptions(architecture, options.is_null() ? Json::object() : options);
  if (!completed) return common::InvalidArgument(reader.PathOf("options") + ": " + completed.error().message);
  model.options = std::move(*completed);
  if (Status fits = architecture.CheckShape(model.shape, model.options); !fits)
    return common::InvalidArgument(reader.PathOf("shape") + ": " + fits.error().message);
  return model;
}

Result<RunConfig> ReadRunConfig(const std::filesystem::path& path) {
  auto file = common::ReadJsonFile(path);
  if (!file) return common::InvalidArgument(file.error().message);
  return ParseRunConfig(*file);
}

Result<RunConfig> ParseRunConfig(const Json& file) {
  ObjectReader reader(file, "");
  reader.Integer("contract_version", kContractVersion, kContractVersion, kContractVersion);
  RunConfig config;
  config.run = reader.Raw("run", true, "object");
  const Json& execution = reader.Raw("execution", false, "object");
  ALLO_RETURN_IF_ERROR(reader.Finish());
  ALLO_ASSIGN_OR_RETURN(config.execution, ParseExecution(OrEmpty(execution)));
  ObjectReader run(config.run, "run");
  config.kind = run.Choice("kind", {}, {"prepare", "pretrain", "finetune"});
  for (const auto& [key, unused] : config.run.items()) run.Ignore(key);
  ALLO_RETURN_IF_ERROR(run.Finish());
  config.run_sha256 = common::Sha256Hex(common::CanonicalJson(config.run));
  return config;
}

Result<PretrainConfig> ParsePretrain(const Json& run) {
  ObjectReader reader(run, "run");
  PretrainConfig config;
  ALLO_ASSIGN_OR_RETURN(config.training, ParseTraining(reader, {128, 0.0, {"inverse_sqrt", 0.01, 10'000, "hold"}}));
  const Json& objective = reader.Raw("objective", false, "object");
  config.join = reader.Choice("join", "end_mark", {"end_mark", "none"}) == "none" ? Join::kNone : Join::kEndMark;
  const Json& evaluation = reader.Raw("evaluation", false, "object");
  ALLO_RETURN_IF_ERROR(reader.Finish());
  ALLO_ASSIGN_OR_RETURN(config.objective, ParseObjective(OrEmpty(objective)));
  const arch::ObjectiveLengths lengths = arch::LengthsOf(config.objective);
  config.training.lengths = {lengths.inputs, lengths.targets};
  const arch::Lengths longest = LongestLengths(config.training.model);
  if (lengths.inputs > longest.inputs || lengths.targets > longest.targets)
    return common::InvalidArgument("run.objective: sequences of " + std::to_string(lengths.inputs) + " input and " +
                                   std::to_string(lengths.targets) + " target tokens, and the model is built for " +
                                   std::to_string(longest.inputs) + " and " + std::to_string(longest.targets));
  ALLO_RETURN_IF_ERROR(
      ParseEvaluation(OrEmpty(evaluation), &config.evaluation_examples, &config.training.evaluate_every_steps));
  return config;
}

Result<FinetuneConfig> ParseFinetune(const Json& run) {
  ObjectReader reader(run, "run");
  FinetuneConfig config;
  ALLO_ASSIGN_OR_RETURN(config.training, ParseTraining(reader, {128, 0.1, {"constant", 1e-3, 0, "hold"}}));
  config.input_length = reader.Integer("input_length", config.input_length, 4, 1 << 20);
  config.target_length = reader.Integer("target_length", config.target_length, 2, 1 << 20);
  const arch::Lengths longest = LongestLengths(config.training.model);
  config.input_length = std::min(config.input_length, longest.inputs);
  if (config.target_length > longest.targets)
    return common::InvalidArgument("run.target_length is " + std::to_string(config.target_length) +
                                   ", and the model is built for " + std::to_string(longest.targets));
  config.training.lengths = {config.input_length, config.target_length};
  config.select = reader.Choice("select", "last", {"last", "best"});
  config.holdout = reader.Integer("holdout", 0, 0, kMany);
  config.early_stop = reader.Integer("early_stop", 0, 0, kMany);
  if (config.select != "best" && (config.holdout > 0 || config.early_stop > 0))
    return common::InvalidArgument("run.holdout and run.early_stop need 'select': 'best'");
  config.decoding = reader.Choice("decoding", "greedy", kDecodings);
  config.shuffle_labels = reader.Boolean("shuffle_labels", false);
  const Json& tasks = reader.Raw("tasks", true, "array");
  const Json& mixture = reader.Raw("mixture", false, "object");
  const Json& evaluation = reader.Raw("evaluation", false, "object");
  ALLO_RETURN_IF_ERROR(reader.Finish());
  ALLO_ASSIGN_OR_RETURN(config.tasks, ParseTasks(tasks));
  ALLO_RETURN_IF_ERROR(ParseMixture(OrEmpty(mixture), config));
  ALLO_RETURN_IF_ERROR(ParseEvaluation(OrEmpty(evaluation), nullptr, &config.training.evaluate_every_steps));
  return config;
}

Json ShapeToJson(const arch::Shape& shape) {
  return {{"encoder_layers", shape.encoder_layers},
          {"decoder_layers", shape.decoder_layers},
          {"d_model", shape.d_model},
          {"d_ff", shape.d_ff},
          {"heads", shape.heads},
          {"d_kv", shape.d_kv},
          {"vocabulary", shape.vocabulary}};
}

}  // namespace allometry::trainer
