#include "coordinator/grid/runs.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "coordinator/grid/known_tasks.h"

namespace allometry::coordinator {
namespace {

using common::Json;

constexpr int64_t kMaxSteps = 1'000'000'000'000;
constexpr int64_t kEvaluationsForSelection = 10;

template <typename T>
T Or(bool given, T value, T otherwise) {
  return given ? value : otherwise;
}

std::string Or(const std::string& value, const char* otherwise) { return value.empty() ? otherwise : value; }

std::string TrainerOf(const v1::SweepSpec& spec) { return Or(spec.trainer(), "builtin"); }

// Files of a role by content: order and folders do not matter.
Json FilesOf(const std::vector<v1::ManifestFile>& manifest, const std::string& role) {
  std::vector<Json> files;
  for (const v1::ManifestFile& file : manifest)
    if (file.role() == role)
      files.push_back({{"name", file.name()}, {"bytes", file.bytes()}, {"sha256", file.sha256()}});
  std::ranges::sort(files, [](const Json& a, const Json& b) {
    return std::pair(a["name"], a["sha256"]) < std::pair(b["name"], b["sha256"]);
  });
  return files;
}

// A part's role in the manifest.
std::string RoleOf(const v1::DataPartSpec& part) { return "dataset:" + PartNameOf(part); }

Json MixtureOf(const v1::SweepSpec& spec, const std::vector<v1::ManifestFile>& manifest) {
  Json parts = Json::array();
  for (const v1::DataPartSpec& part : spec.data().mixture())
    parts.push_back({{"name", PartNameOf(part)},
                     {"rate", Or(part.has_rate(), part.rate(), 1.0)},
                     {"files", FilesOf(manifest, RoleOf(part))}});
  return {{"format", "mixture"}, {"parts", parts}};
}

// Members that came after the first sweeps are there only where they are given, so that no identity changed.
Json CorpusOf(const v1::SweepSpec& spec, const std::vector<v1::ManifestFile>& manifest) {
  const v1::DataSpec& data = spec.data();
  if (data.mixture_size() > 0) return MixtureOf(spec, manifest);
  if (!data.path().empty()) return {{"format", "built"}, {"files", FilesOf(manifest, "dataset")}};
  Json corpus{{"format", Or(data.corpus(), Or(data.format(), "text").c_str())}, {"files", FilesOf(manifest, "corpus")}};
  if (data.format().empty() || data.format() == "text") corpus["document"] = Or(data.document(), "paragraph");
  if (!data.field().empty() && data.field() != "text") corpus["field"] = data.field();
  if (!data.column().empty() && data.column() != "text") corpus["column"] = data.column();
  if (data.skip_bad_rows()) corpus["skip_bad_rows"] = true;
  if (data.valid_size() > 0)
    corpus["valid_files"] = FilesOf(manifest, "valid");
  else
    corpus["validation_fraction"] = Or(data.has_validation_fraction(), data.validation_fraction(), 0.01);
  return corpus;
}

// Benchmarks that the sweep's tasks are of and that have labels: GLUE and SuperGLUE together, so that another task of
// theirs changes no tokenizer.
std::vector<std::string> LabelledBenchmarks(const v1::SweepSpec& spec) {
  bool wordnet = false, others = false;
  for (const v1::TaskSpec& task : TasksOf(spec)) {
    const KnownData* known = IsOwnTask(task) ? nullptr : FindKnown(KnownTasks(), task.name());
    if (known != nullptr) (known->benchmark == "wordnet" ? wordnet : others) = true;
  }
  std::vector<std::string> names;
  if (others) names = {"glue", "superglue"};
  if (wordnet) names.push_back("wordnet");
  return names;
}

Json TokenizerOf(const v1::SweepSpec& spec, const std::vector<v1::ManifestFile>& manifest) {
  Json tokenizer{{"vocabulary", VocabularyOf(spec)}};
  const Json models = FilesOf(manifest, "tokenizer");
  if (!models.empty()) tokenizer["model_sha256"] = models[0]["sha256"];
  const bool trained = models.empty() && spec.data().path().empty() && spec.data().mixture_size() == 0;
  if (const auto benchmarks = LabelledBenchmarks(spec); trained && !benchmarks.empty())
    tokenizer["spells"] = benchmarks;
  return tokenizer;
}

std::string NameOf(const std::string& path) { return std::filesystem::path(path).filename().string(); }

Json PreparedTask(const v1::TaskSpec& task, const std::vector<v1::ManifestFile>& manifest) {
  Json prepared{{"name", task.name()}, {"files", FilesOf(manifest, "task:" + task.name())}};
  if (task.has_max_train()) prepared["max_train"] = task.max_train();
  if (task.has_max_valid()) prepared["max_valid"] = task.max_valid();
  if (task.t5_padding()) prepared["t5_padding"] = true;
  if (task.skip_bad_rows()) prepared["skip_bad_rows"] = true;
  if (!IsOwnTask(task)) return prepared;
  prepared["train"] = NameOf(task.train());
  prepared["valid"] = NameOf(task.valid());
  if (task.metrics_size() > 0)
    prepared["metrics"] = std::vector<std::string>(task.metrics().begin(), task.metrics().end());
  return prepared;
}

struct OptimizerDefaults {
  double learning_rate;
  const char* schedule;
  int64_t warmup_steps;
};

Json OptimizerOf(const v1::OptimizerSpec& given, const OptimizerDefaults& defaults) {
  Json optimizer{{"name", Or(given.name(), "adafactor")},
                 {"learning_rate", Or(given.has_learning_rate(), given.learning_rate(), defaults.learning_rate)},
                 {"schedule", Or(given.schedule(), defaults.schedule)},
                 {"warmup_steps", Or(given.has_warmup_steps(), given.warmup_steps(), defaults.warmup_steps)},
                 {"weight_decay", given.weight_decay()},
                 {"clip_norm", given.clip_norm()}};
  const bool wsd = optimizer["schedule"] == "wsd", cosine = optimizer["schedule"] == "cosine";
  if (wsd || cosine)
    optimizer["final_fraction"] = Or(given.has_final_fraction(), given.final_fraction(), cosine ? 0.1 : 0.0);
  if (wsd) optimizer["decay_fraction"] = Or(given.has_decay_fraction(), given.decay_fraction(), 0.1);
  return optimizer;
}

int64_t BatchOf(const v1::PretrainingSpec& p) { return Or<int64_t>(p.has_batch_sequences(), p.batch_sequences(), 128); }

// Each objective with the numbers that it has.
Json ObjectiveToJson(const arch::ObjectiveSettings& objective) {
  Json json{{"name", objective.name}, {"input_length", objective.input_length}};
  if (objective.name == "prefix_lm") {
    json["target_length"] = arch::LengthsOf(objective).targets;
    return json;
  }
  json["noise_density"] = objective.noise_density;
  if (objective.name == "span_corruption") json["mean_span_length"] = objective.mean_span_length;
  return json;
}

int64_t EvaluationEvery(const v1::FinetuningSpec& finetuning, int64_t steps) {
  if (finetuning.has_evaluate_every_steps()) return finetuning.evaluate_every_steps();
  return finetuning.select() == "best" ? std::max<int64_t>(1, steps / kEvaluationsForSelection) : 0;
}

// Training examples of a task that checkpoints are selected by.
int64_t HoldoutOf(const v1::FinetuningSpec& finetuning) {
  if (finetuning.select() != "best") return 0;
  return Or<int64_t>(finetuning.has_holdout(), finetuning.holdout(), 256);
}

// Answers to WordNet's tasks are single words; others, free text among them, take more.
int64_t DefaultTargetLength(const v1::SweepSpec& spec) {
  const bool words = std::ranges::all_of(TasksOf(spec), [&](const v1::TaskSpec& task) {
    const KnownData* known = FindKnown(KnownTasks(), task.name());
    return !IsBuiltin(spec) || (known != nullptr && known->benchmark == "wordnet");
  });
  return words ? 8 : 64;
}

void AddNumericsVersion(const v1::SweepSpec& spec, Json* run) {
  if (!IsBuiltin(spec)) return;
  (*run)["numerics_version"] =
      (*arch::FindArchitecture(run->at("model").at("architecture").get<std::string>()))->numerics_version();
}

}  // namespace

arch::ObjectiveSettings ObjectiveOf(const v1::PretrainingSpec& p) {
  arch::ObjectiveSettings objective;
  if (!p.objective().empty()) objective.name = p.objective();
  if (p.has_input_length()) objective.input_length = p.input_length();
  if (p.has_target_length()) objective.target_length = p.target_length();
  if (p.has_noise_density()) objective.noise_density = p.noise_density();
  if (p.has_mean_span_length()) objective.mean_span_length = p.mean_span_length();
  return objective;
}

Json PrepareTextRun(const v1::SweepSpec& spec, const std::vector<v1::ManifestFile>& manifest) {
  return {{"kind", "prepare"},
          {"trainer", TrainerOf(spec)},
          {"corpus", CorpusOf(spec, manifest)},
          {"tokenizer", TokenizerOf(spec, manifest)},
          {"tasks", Json::array()},
          {"seed", 0}};
}

Json PrepareTasksRun(const v1::SweepSpec& spec, const std::vector<v1::ManifestFile>& manifest,
                     const std::vector<v1::TaskSpec>& chosen, const std::string& text) {
  Json tasks = Json::array();
  for (const v1::TaskSpec& task : chosen) tasks.push_back(PreparedTask(task, manifest));
  std::sort(tasks.begin(), tasks.end(), [](const Json& a, const Json& b) { return a["name"] < b["name"]; });
  return {{"kind", "prepare"}, {"trainer", TrainerOf(spec)}, {"data", text}, {"tasks", tasks}, {"seed", 0}};
}

common::Result<Json> OptionsOf(const v1::SweepSpec& spec, const arch::Architecture& architecture, const Json& given) {
  return arch::CompleteOptions(architecture,
                               arch::WithRecipeLengths(architecture, given, PretrainingStep(spec).lengths));
}

Json ModelOf(const v1::SweepSpec& spec, const v1::ArchitectureSpec& architecture, const GridShape& shape) {
  Json options = StructToJson(architecture.options());
  if (!IsBuiltin(spec)) {
    options.update(shape.options);
    Json model{{"architecture", architecture.name()}, {"options", std::move(options)}};
    if (!shape.given.empty()) model["shape"] = shape.given;
    return model;
  }
  const arch::Shape& s = shape.shape;
  const arch::Architecture& known = **arch::FindArchitecture(architecture.name());
  return {{"architecture", architecture.name()},
          {"options", OptionsOf(spec, known, options).value()},
          {"shape",
           {{"encoder_layers", s.encoder_layers},
            {"decoder_layers", s.decoder_layers},
            {"d_model", s.d_model},
            {"d_ff", s.d_ff},
            {"heads", s.heads},
            {"d_kv", s.d_kv},
            {"vocabulary", s.vocabulary}}}};
}

Json PretrainRun(const v1::SweepSpec& spec, const std::vector<v1::ManifestFile>& manifest, const Json& model,
                 const std::string& data, int64_t steps, uint64_t seed) {
  const v1::PretrainingSpec& p = spec.pretraining();
  Json run{{"kind", "pretrain"},
           {"trainer", TrainerOf(spec)},
           {"model", model},
           {"objective", ObjectiveToJson(ObjectiveOf(p))},
           {"optimizer", OptimizerOf(p.optimizer(), {0.01, "inverse_sqrt", 10'000})},
           {"batch_sequences", BatchOf(p)},
           {"steps", steps},
           {"dropout", p.dropout()},
           {"seed", seed},
           {"evaluation",
            {{"examples", Or<int64_t>(p.has_evaluation_examples(), p.evaluation_examples(), 512)},
             {"every_steps", p.evaluate_every_steps()}}},
           {"divergence", {{"loss_spike", Or(p.has_loss_spike(), p.loss_spike(), 2.0)}}}};
  if (p.z_loss() > 0) run["z_loss"] = p.z_loss();  // left out at 0, as runs were before there was one
  if (p.join() == "none") run["join"] = "none";
  if (IsBuiltin(spec)) run["data"] = data;
  if (!IsBuiltin(spec)) run["corpus"] = CorpusOf(spec, manifest);
  AddNumericsVersion(spec, &run);
  return run;
}

Json FinetuneRun(const v1::SweepSpec& spec, const std::vector<v1::ManifestFile>& manifest, const Json& model,
                 const std::vector<v1::TaskSpec>& chosen, const std::string& data, const std::string& parent,
                 uint64_t seed) {
  const v1::FinetuningSpec& f = spec.finetuning();
  const StepSize step = FinetuningStep(spec);
  Json tasks = Json::array();
  for (const v1::TaskSpec& task : chosen) {
    tasks.push_back(IsBuiltin(spec) ? Json{{"name", task.name()}} : PreparedTask(task, manifest));
    if (!task.decoding().empty()) tasks.back()["decoding"] = task.decoding();
  }
  Json run{{"kind", "finetune"},
           {"trainer", TrainerOf(spec)},
           {"model", model},
           {"parent", parent},
           {"tasks", std::move(tasks)},
           {"mixture", {{"cap", f.mixture_cap()}}},
           {"input_length", step.lengths.inputs},
           {"target_length", step.lengths.targets},
           {"optimizer", OptimizerOf(f.optimizer(), {1e-3, "constant", 0})},
           {"batch_sequences", step.batch_sequences},
           {"steps", FinetuningSteps(spec)},
           {"dropout", Or(f.has_dropout(), f.dropout(), 0.1)},
           {"seed", seed},
           {"select", Or(f.select(), "last")},
           {"shuffle_labels", f.shuffle_labels()},
           {"evaluation", {{"every_steps", EvaluationEvery(f, FinetuningSteps(spec))}}}};
  if (f.z_loss() > 0) run["z_loss"] = f.z_loss();
  if (f.decoding() == "rank") run["decoding"] = "rank";
  if (const int64_t holdout = HoldoutOf(f); holdout > 0) run["holdout"] = holdout;
  if (f.early_stop() > 0) run["early_stop"] = f.early_stop();
  if (IsBuiltin(spec)) run["data"] = data;
  AddNumericsVersion(spec, &run);
  return run;
}

StepSize PretrainingStep(const v1::SweepSpec& spec) {
  const v1::PretrainingSpec& p = spec.pretraining();
  const arch::ObjectiveLengths lengths = arch::LengthsOf(ObjectiveOf(p));
  return {{lengths.inputs, lengths.targets}, BatchOf(p)};
}

StepSize FinetuningStep(const v1::SweepSpec& spec) {
  const v1::FinetuningSpec& f = spec.finetuning();
  return {{Or<int64_t>(f.has_input_length(), f.input_length(), 128),
           f.has_target_length() ? f.target_length() : DefaultTargetLength(spec)},
          Or<int64_t>(f.has_batch_sequences(), f.batch_sequences(), 128)};
}

int64_t FinetuningSteps(const v1::SweepSpec& spec) {
  return Or<int64_t>(spec.finetuning().has_steps(), spec.finetuning().steps(), 100'000);
}

int64_t PretrainingSteps(const v1::SweepSpec& spec, int64_t non_embedding_parameters, int64_t forward_flops) {
  const v1::PretrainingSpec& p = spec.pretraining();
  if (p.has_steps()) return p.steps();
  const StepSize step = PretrainingStep(spec);
  const double tokens_per_step = static_cast<double>(step.batch_sequences * step.lengths.inputs);
  double steps = 0;
  if (p.has_flops()) {
    steps = std::round(p.flops() / (3.0 * static_cast<double>(forward_flops * step.batch_sequences)));
  } else {
    const double tokens =
        p.has_tokens() ? p.tokens() : p.tokens_per_parameter() * static_cast<double>(non_embedding_parameters);
    steps = std::ceil(tokens / tokens_per_step);
  }
  return static_cast<int64_t>(std::clamp(steps, 1.0, static_cast<double>(kMaxSteps)));
}

}  // namespace allometry::coordinator
