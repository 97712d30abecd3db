#include "coordinator/grid/check.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "arch/architecture.h"
#include "arch/objective.h"
#include "common/ids.h"
#include "coordinator/grid/known_tasks.h"
#include "coordinator/grid/runs.h"
#include "coordinator/grid/shapes.h"

namespace allometry::coordinator {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr double kMany = 1e12;
constexpr double kHuge = 1e30;
constexpr int64_t kMaxCells = 1'000'000;

struct Range {
  double low, high;
  bool low_excluded = false;
};

// Keyed by message and field, so that a message used twice (OptimizerSpec) has one rule.
const std::map<std::string, Range>& Ranges() {
  static const std::map<std::string, Range> ranges{
      {"DataSpec.validation_fraction", {0, 0.5, true}},
      {"DataPartSpec.rate", {0, 1e6, true}},
      {"TokenizerSpec.vocabulary", {200, 1 << 20}},
      {"SweepSpec.seeds", {0, 9007199254740992.0}},
      {"SizeSpec.layers", {1, 4096}},
      {"SizeSpec.encoder_layers", {1, 4096}},
      {"SizeSpec.decoder_layers", {1, 4096}},
      {"SizeSpec.d_model", {1, 1 << 20}},
      {"SizeSpec.d_ff", {1, 1 << 22}},
      {"SizeSpec.heads", {1, 1 << 16}},
      {"SizeSpec.d_kv", {1, 1 << 16}},
      {"SizeSpec.vocabulary", {200, 1 << 24}},
      {"ShapeAxes.layers", {1, 4096}},
      {"ShapeAxes.encoder_layers", {1, 4096}},
      {"ShapeAxes.decoder_layers", {1, 4096}},
      {"ShapeAxes.d_model", {1, 1 << 20}},
      {"ShapeAxes.d_ff", {1, 1 << 22}},
      {"ShapeAxes.heads", {1, 1 << 16}},
      {"ShapeAxes.d_kv", {1, 1 << 16}},
      {"ShapeAxes.vocabulary", {200, 1 << 24}},
      {"OptimizerSpec.learning_rate", {0, 1e6, true}},
      {"OptimizerSpec.warmup_steps", {0, kMany}},
      {"OptimizerSpec.weight_decay", {0, 1e6}},
      {"OptimizerSpec.clip_norm", {0, kHuge}},
      {"OptimizerSpec.final_fraction", {0, 1}},
      {"OptimizerSpec.decay_fraction", {0, 1}},
      {"PretrainingSpec.input_length", {8, 1 << 20}},
      {"PretrainingSpec.target_length", {2, 1 << 20}},
      {"PretrainingSpec.noise_density", {0.001, 0.9}},
      {"PretrainingSpec.mean_span_length", {1, 1000}},
      {"PretrainingSpec.batch_sequences", {1, 1 << 20}},
      {"PretrainingSpec.steps", {1, kMany}},
      {"PretrainingSpec.tokens", {1, kHuge}},
      {"PretrainingSpec.tokens_per_parameter", {0, 1e9, true}},
      {"PretrainingSpec.flops", {1, kHuge}},
      {"PretrainingSpec.dropout", {0, 0.99}},
      {"PretrainingSpec.evaluation_examples", {1, kMany}},
      {"PretrainingSpec.evaluate_every_steps", {0, kMany}},
      {"PretrainingSpec.loss_spike", {0, kHuge}},
      {"PretrainingSpec.z_loss", {0, 1e6}},
      {"FinetuningSpec.steps", {1, kMany}},
      {"FinetuningSpec.batch_sequences", {1, 1 << 20}},
      {"FinetuningSpec.input_length", {4, 1 << 20}},
      {"FinetuningSpec.target_length", {2, 1 << 20}},
      {"FinetuningSpec.dropout", {0, 0.99}},
      {"FinetuningSpec.mixture_cap", {1, kMany}},
      {"FinetuningSpec.z_loss", {0, 1e6}},
      {"FinetuningSpec.holdout", {0, kMany}},
      {"FinetuningSpec.early_stop", {0, kMany}},
      {"FinetuningSpec.evaluate_every_steps", {1, kMany}},
      {"TaskSpec.max_train", {1, kMany}},
      {"TaskSpec.max_valid", {1, kMany}},
      {"SchedulingSpec.priority", {-1e6, 1e6}},
      {"BudgetSpec.flops", {1, kHuge}},
      {"LimitsSpec.seconds", {1, 1e9}},
      {"LimitsSpec.memory_bytes", {1 << 20, 1e15}},
      {"LimitsSpec.threads", {1, 1024}},
  };
  return ranges;
}

const std::map<std::string, std::vector<std::string>>& Choices() {
  static const std::map<std::string, std::vector<std::string>> choices{
      {"SweepSpec.precision", {"auto", "fp32", "bf16"}},
      {"SweepSpec.keep_models", {"parents", "all"}},
      {"DataSpec.corpus", NamesOf(KnownCorpora())},
      {"DataSpec.document", {"paragraph", "line", "file"}},
      {"DataSpec.format", {"text", "jsonl", "wikipedia", "tsv"}},
      {"OptimizerSpec.name", {"adafactor", "adamw"}},
      {"OptimizerSpec.schedule", {"inverse_sqrt", "constant", "cosine", "wsd"}},
      {"PretrainingSpec.objective", {arch::ObjectiveNames().begin(), arch::ObjectiveNames().end()}},
      {"PretrainingSpec.join", {"end_mark", "none"}},
      {"FinetuningSpec.select", {"last", "best"}},
      {"FinetuningSpec.decoding", {"greedy", "rank"}},
      {"FinetuningSpec.mode", {"mixture", "separate"}},
      {"TaskSpec.decoding", {"greedy", "rank"}},
      {"SchedulingSpec.policy", {"fewest_flops_first", "fifo"}},
  };
  return choices;
}

std::string OneOf(const std::string& path, const std::string& value, const std::vector<std::string>& allowed) {
  std::string text = path + " is '" + value + "'; allowed:";
  for (const std::string& name : allowed) text += " " + name;
  const std::string near = common::NearestName(value, allowed);
  return near.empty() ? text : text + "; did you mean '" + near + "'?";
}

// Shortest text, and integers as people write them.
std::string Number(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return std::to_string(static_cast<int64_t>(value));
  return common::Json(value).dump();
}

double NumberOf(const Message& message, const FieldDescriptor& field, int index) {
  const auto* reflection = message.GetReflection();
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE) return reflection->GetDouble(message, &field);
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_UINT64)
    return static_cast<double>(reflection->GetRepeatedUInt64(message, &field, index));
  return static_cast<double>(index < 0 ? reflection->GetInt64(message, &field)
                                       : reflection->GetRepeatedInt64(message, &field, index));
}

class FieldChecker {
 public:
  explicit FieldChecker(std::vector<SpecProblem>* problems) : problems_(problems) {}

  void Walk(const Message& message, const std::string& path) {
    if (message.GetTypeName().rfind("allometry.", 0) != 0) return;  // free-form values
    std::vector<const FieldDescriptor*> fields;
    message.GetReflection()->ListFields(message, &fields);
    for (const FieldDescriptor* field : fields) {
      if (field->is_map()) continue;
      const std::string field_path = path.empty() ? field->name() : path + "." + field->name();
      if (!field->is_repeated()) {
        Visit(message, *field, -1, field_path);
        continue;
      }
      for (int i = 0; i < message.GetReflection()->FieldSize(message, field); ++i)
        Visit(message, *field, i, field_path + "[" + std::to_string(i) + "]");
    }
  }

 private:
  void Visit(const Message& message, const FieldDescriptor& field, int index, const std::string& path) {
    const auto* reflection = message.GetReflection();
    const std::string key = message.GetDescriptor()->name() + "." + field.name();
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE)
      return Walk(
          index < 0 ? reflection->GetMessage(message, &field) : reflection->GetRepeatedMessage(message, &field, index),
          path);
    if (const auto choices = Choices().find(key); choices != Choices().end()) {
      const std::string value = reflection->GetString(message, &field);
      if (std::ranges::count(choices->second, value) == 0)
        problems_->push_back({path, OneOf(path, value, choices->second)});
    }
    if (key == "SizeSpec.devices" || key == "SweepSpec.devices")
      CheckDevices(reflection->GetString(message, &field), path);
    if (key == "SizeSpec.slots_per_gpu" || key == "SweepSpec.slots_per_gpu")
      CheckSlotsPerGpu(reflection->GetString(message, &field), path);
    if (const auto range = Ranges().find(key); range != Ranges().end())
      CheckRange(NumberOf(message, field, index), range->second, path);
  }

  void CheckSlotsPerGpu(const std::string& value, const std::string& path) {
    if (!ParseSlotsPerGpu(value))
      problems_->push_back({path, path + " is '" + value + "': use 1, 2, 4, 8, 16 or auto"});
  }

  void CheckDevices(const std::string& value, const std::string& path) {
    if (!ParseDevices(value))
      problems_->push_back(
          {path, path + " is '" + value + "'; allowed: from 1 to " + std::to_string(kMostDevices) + ", or auto"});
  }

  void CheckRange(double value, const Range& range, const std::string& path) {
    const bool low_ok = range.low_excluded ? value > range.low : value >= range.low;
    if (low_ok && value <= range.high) return;
    problems_->push_back({path, path + " is " + Number(value) +
                                    "; allowed: " + (range.low_excluded ? "more than " : "from ") + Number(range.low) +
                                    (range.low_excluded ? ", up to " : " to ") + Number(range.high)});
  }

  std::vector<SpecProblem>* problems_;
};

std::string At(const char* field, int index) { return std::string(field) + "[" + std::to_string(index) + "]"; }

// The checks that see more than one field.
class SpecChecker {
 public:
  SpecChecker(const v1::SweepSpec& spec, std::vector<SpecProblem>* problems) : spec_(spec), problems_(problems) {}

  void Check() {
    CheckNames();
    CheckData();
    CheckArchitectures();
    CheckSizes();
    CheckAxes();
    CheckSeeds();
    CheckPretraining();
    CheckFinetuning();
    for (int i = 0; i < spec_.sizes_size(); ++i) CheckDevices(i);
    CheckOptimizer(spec_.pretraining().optimizer(), "pretraining.optimizer");
    CheckOptimizer(spec_.finetuning().optimizer(), "finetuning.optimizer");
    if (problems_->empty()) CheckGrid();
  }

 private:
  void Add(std::string path, std::string message) { problems_->push_back({std::move(path), std::move(message)}); }

  void CheckName(const std::string& path, const std::string& value) {
    if (!IsName(value))
      Add(path, path + " is '" + value +
                    "'; a name has up to 64 letters, digits, '.', '_' and '-', and starts with a "
                    "letter, a digit or '_'");
  }

  void CheckNames() {
    spec_.name().empty() ? Add("", "name is missing: give the sweep a name") : CheckName("name", spec_.name());
    if (!spec_.trainer().empty()) CheckName("trainer", spec_.trainer());
    for (const auto& [key, value] : spec_.tags()) {
      CheckName("tags." + key, key);
      if (value.size() > 256) Add("tags." + key, "tags." + key + " is longer than 256 bytes");
    }
  }

  void CheckData() {
    const v1::DataSpec& data = spec_.data();
    const int sources =
        !data.corpus().empty() + (data.text_size() > 0) + !data.path().empty() + !data.mixture().empty();
    if (sources != 1)
      return Add("data",
                 std::string("data needs ") + (sources > 1 ? "only one of" : "one of") +
                     " corpus (a known one: gcide), text (a list of file patterns), path (a built data set) and "
                     "mixture (a list of them)");
    CheckTextOptions(data);
    if (IsBuiltData(spec_) && !spec_.tokenizer().model().empty())
      Add("tokenizer.model", "tokenizer.model is for text: a built data set has its own tokenizer");
    CheckMixture(data);
  }

  // What only raw text has, or only one format of it.
  void CheckTextOptions(const v1::DataSpec& data) {
    const std::string format = data.format().empty() ? "text" : data.format();
    const bool files = data.text_size() > 0;
    const auto only = [&](const char* field, bool given, bool fits, const char* why) {
      const std::string path = std::string("data.") + field;
      if (given && !fits) Add(path, path + why);
    };
    only("format", !data.format().empty(), files, " is for text");
    only("valid", data.valid_size() > 0, files, " is for text");
    only("skip_bad_rows", data.skip_bad_rows(), files, " is for text");
    only("field", !data.field().empty(), files && format == "jsonl", " is for text of format jsonl");
    only("column", !data.column().empty(), files && format == "tsv", " is for text of format tsv");
    only("document", !data.document().empty(), !IsBuiltData(spec_) && format == "text", " is for text of format text");
    only("validation_fraction", data.has_validation_fraction(), !IsBuiltData(spec_),
         " is for text: a built data set is split already");
    only("validation_fraction", data.has_validation_fraction() && data.valid_size() > 0, false,
         " has no place beside data.valid, which names the validation files");
  }

  void CheckMixture(const v1::DataSpec& data) {
    std::set<std::string> names;
    for (int i = 0; i < data.mixture_size(); ++i) {
      const std::string path = "data." + At("mixture", i);
      if (data.mixture(i).path().empty()) {
        Add(path, path + " has no path: name a folder that allo data build made");
        continue;
      }
      const std::string name = PartNameOf(data.mixture(i));
      CheckName(path + ".name", name);
      if (!names.insert(name).second)
        Add(path, path + ": two parts are called '" + name + "'; give one of them a name of its own");
    }
  }

  void CheckArchitectures() {
    if (spec_.architectures().empty()) Add("", "architectures is missing: name at least one");
    std::set<std::string> labels;
    for (int i = 0; i < spec_.architectures_size(); ++i) {
      const std::string path = At("architectures", i);
      const v1::ArchitectureSpec& architecture = spec_.architectures(i);
      if (architecture.name().empty()) {
        Add(path, path + " has no name");
        continue;
      }
      CheckName(architecture.label().empty() ? path + ".name" : path + ".label", LabelOf(architecture));
      if (!labels.insert(LabelOf(architecture)).second)
        Add(path, path + ": two architectures are called '" + LabelOf(architecture) +
                      "'; give one of them a label of its own");
      if (IsBuiltin(spec_)) CheckOptions(architecture, path);
    }
  }

  void CheckOptions(const v1::ArchitectureSpec& architecture, const std::string& path) {
    const auto found = arch::FindArchitecture(architecture.name());
    if (!found) return Add(path + ".name", found.error().message);
    const auto options = arch::CompleteOptions(**found, StructToJson(architecture.options()));
    if (!options) Add(path + ".options", options.error().message);
  }

  void CheckSizes() {
    if (spec_.sizes().empty()) Add("", "sizes is missing: name at least one");
    std::set<std::string> names;
    for (int i = 0; i < spec_.sizes_size(); ++i) {
      const std::string path = At("sizes", i);
      const v1::SizeSpec& size = spec_.sizes(i);
      CheckName(path + ".name", size.name());
      if (!names.insert(size.name()).second) Add(path, path + ": two sizes are called '" + size.name() + "'");
      if (const auto shape = ShapeOfSize(size, spec_); !shape) Add(path, shape.error().message);
      if (size.has_vocabulary()) CheckVocabulary(path + ".vocabulary", size.vocabulary());
      if (IsBuiltin(spec_) && size.options().fields_size() > 0)
        Add(path + ".options", path +
                                   ".options is for trainers of one's own; options of an architecture stand in "
                                   "architectures");
    }
  }

  // Each rank needs a sequence of the batch at least.
  void CheckDevices(int index) {
    const v1::SizeSpec& size = spec_.sizes(index);
    const auto devices = ParseDevices(DevicesText(spec_, size));
    if (!devices) return;  // told already
    const std::string path = size.devices().empty() ? "devices" : At("sizes", index) + ".devices";
    const auto check = [&](const char* phase, int64_t batch) {
      if (*devices > batch)
        Add(path, path + " is " + std::to_string(*devices) + ", and a batch of " + phase + " has " +
                      std::to_string(batch) + " sequences: each device needs at least one");
    };
    const auto slots = ParseSlotsPerGpu(SlotsPerGpuText(spec_, size));
    if (*devices > 1 && slots && *slots > 1) {
      const std::string slots_path =
          size.slots_per_gpu().empty() ? "slots_per_gpu" : At("sizes", index) + ".slots_per_gpu";
      Add(slots_path, slots_path + " is " + std::to_string(*slots) + ", and " + path + " is " +
                          std::to_string(*devices) + ": a run on several devices has each of them to itself");
    }
    check("pretraining", PretrainingStep(spec_).batch_sequences);
    if (spec_.has_finetuning()) check("finetuning", FinetuningStep(spec_).batch_sequences);
  }

  // Rows beyond the tokenizer's pieces are never looked up; too few would leave pieces without a row.
  void CheckVocabulary(const std::string& path, int64_t rows) {
    if (IsBuiltData(spec_) && !spec_.tokenizer().has_vocabulary()) return;  // not known before the folder is read
    if (rows < VocabularyOf(spec_))
      Add(path, path + " is " + std::to_string(rows) + ", and the tokenizer's vocabulary is " +
                    std::to_string(VocabularyOf(spec_)) + ": name at least as many, or a smaller tokenizer.vocabulary");
  }

  void CheckAxes() {
    const v1::ShapeAxes& axes = spec_.axes();
    for (int i = 0; i < axes.vocabulary_size(); ++i) CheckVocabulary("axes." + At("vocabulary", i), axes.vocabulary(i));
    if (axes.layers_size() > 0 && (axes.encoder_layers_size() > 0 || axes.decoder_layers_size() > 0))
      Add("axes.layers", "axes.layers sets both stacks and excludes axes.encoder_layers and axes.decoder_layers");
    const auto* reflection = axes.GetReflection();
    for (int i = 0; i < axes.GetDescriptor()->field_count(); ++i) {
      const FieldDescriptor* field = axes.GetDescriptor()->field(i);
      std::set<int64_t> seen;
      for (int j = 0; j < reflection->FieldSize(axes, field); ++j)
        if (const int64_t value = reflection->GetRepeatedInt64(axes, field, j); !seen.insert(value).second)
          Add("axes." + At(field->name().c_str(), j),
              "axes." + field->name() + " names " + std::to_string(value) + " twice");
    }
  }

  void CheckSeeds() {
    std::set<uint64_t> seen;
    for (int i = 0; i < spec_.seeds_size(); ++i)
      if (!seen.insert(spec_.seeds(i)).second)
        Add(At("seeds", i), "seeds names " + std::to_string(spec_.seeds(i)) + " twice");
  }

  void CheckPretraining() {
    const v1::PretrainingSpec& p = spec_.pretraining();
    if (!spec_.has_pretraining()) return Add("", "pretraining is missing: give at least its steps");
    const int budgets = p.has_steps() + p.has_tokens() + p.has_tokens_per_parameter() + p.has_flops();
    if (budgets != 1)
      Add("pretraining", std::string("pretraining needs ") + (budgets == 0 ? "one" : "only one") +
                             " of steps, tokens, tokens_per_parameter and flops");
    if (!IsBuiltin(spec_) && (p.has_tokens_per_parameter() || p.has_flops()))
      Add("pretraining", "what trainer '" + spec_.trainer() + "' costs is not known here: give its steps or tokens");
    CheckObjective(p);
    if (!IsBuiltin(spec_) && spec_.activation_checkpointing())
      Add("activation_checkpointing",
          "activation_checkpointing is for the built-in trainer, not for '" + spec_.trainer() + "'");
  }

  void CheckObjective(const v1::PretrainingSpec& p) {
    const arch::ObjectiveSettings objective = ObjectiveOf(p);
    const auto only_for = [&](bool given, const char* field, const char* objectives) {
      if (given)
        Add(std::string("pretraining.") + field, std::string("pretraining.") + field + " is for " + objectives +
                                                     " only; the objective is " + objective.name);
    };
    const bool spans = objective.name == "span_corruption", prefix = objective.name == "prefix_lm";
    only_for(p.has_mean_span_length() && !spans, "mean_span_length", "span_corruption");
    only_for(p.has_noise_density() && prefix, "noise_density", "span_corruption and bert");
    only_for(p.has_target_length() && !prefix, "target_length", "prefix_lm");
    const bool fields_are_right = std::ranges::none_of(
        *problems_, [](const SpecProblem& problem) { return problem.path.starts_with("pretraining."); });
    if (!IsBuiltin(spec_) || !fields_are_right) return;
    if (const common::Status possible = arch::CheckObjective(objective); !possible)
      Add("pretraining", "pretraining: " + possible.error().message);
  }

  void CheckFinetuning() {
    if (!spec_.has_finetuning()) return;
    const v1::FinetuningSpec& f = spec_.finetuning();
    if (f.tasks().empty()) Add("finetuning", "finetuning.tasks is missing: name at least one task");
    if (f.select() != "best" && (f.holdout() > 0 || f.early_stop() > 0))
      Add("finetuning", "finetuning.holdout and finetuning.early_stop select checkpoints: they need select: best");
    for (int i = 0; i < f.tasks_size(); ++i) CheckTask(At("finetuning.tasks", i), f.tasks(i));
    std::set<std::string> names;
    for (const v1::TaskSpec& task : TasksOf(spec_))
      if (!names.insert(task.name()).second)
        Add("finetuning", "finetuning.tasks: task '" + task.name() + "' comes twice");
  }

  void CheckTask(const std::string& path, const v1::TaskSpec& task) {
    if (!IsBuiltin(spec_)) return;
    if (IsOwnTask(task)) return CheckOwnTask(path, task);
    const KnownData* known = FindKnown(KnownTasks(), task.name());
    if (!known && !IsTaskGroup(task.name())) {
      std::vector<std::string> names = NamesOf(KnownTasks());
      names.insert(names.end(), {"glue", "superglue"});
      Add(path + ".name", OneOf(path + ".name", task.name(), names) + "; a task of your own has train and valid");
    }
    if (task.metrics_size() > 0)
      Add(path + ".metrics",
          path + ".metrics is for tasks of one's own; " + task.name() + " is measured as its benchmark does");
    if (task.t5_padding() && task.name() != "squad") Add(path + ".t5_padding", path + ".t5_padding is for squad only");
    if (task.skip_bad_rows() && known && known->benchmark == "wordnet")
      Add(path + ".skip_bad_rows", path + ".skip_bad_rows is not for " + task.name() + ", whose rows belong together");
    if (task.decoding() == "rank" && task.name() == "squad")
      Add(path + ".decoding", path + ".decoding: squad has no choices to rank; it is answered in words (greedy)");
  }

  void CheckOwnTask(const std::string& path, const v1::TaskSpec& task) {
    CheckName(path + ".name", task.name());
    if (FindKnown(KnownTasks(), task.name()) || IsTaskGroup(task.name()))
      Add(path + ".name", path + ".name: '" + task.name() + "' is a built-in task, which needs no train and valid");
    if (task.train().empty() || task.valid().empty())
      Add(path, path + " needs both train and valid, files of JSON lines");
    const auto file = [](const std::string& text) { return std::filesystem::path(text).filename(); };
    if (file(task.train()) == file(task.valid()))
      Add(path, path + ".train and .valid have the same file name: rename one of them");
    if (!task.folder().empty()) Add(path + ".folder", path + ".folder is for the benchmarks' tasks");
    for (const std::string& metric : task.metrics())
      if (const std::vector<std::string> known{"accuracy", "exact_match", "f1"}; std::ranges::count(known, metric) == 0)
        Add(path + ".metrics", OneOf(path + ".metrics", metric, known));
  }

  void CheckOptimizer(const v1::OptimizerSpec& optimizer, const std::string& path) {
    const bool adamw = optimizer.name() == "adamw";
    if (optimizer.weight_decay() > 0 && !adamw)
      Add(path + ".weight_decay", path + ".weight_decay is for adamw only; the optimizer is adafactor");
    if (adamw && !optimizer.has_learning_rate()) Add(path, path + " needs a learning_rate: adamw has no default here");
    const bool wsd = optimizer.schedule() == "wsd", decays = wsd || optimizer.schedule() == "cosine";
    if (optimizer.has_final_fraction() && !decays)
      Add(path + ".final_fraction", path + ".final_fraction is for the schedules cosine and wsd only");
    if (optimizer.has_decay_fraction() && !wsd)
      Add(path + ".decay_fraction", path + ".decay_fraction is for the schedule wsd only");
  }

  void CheckGrid() {
    const int64_t cells = ShapeCount(spec_) * spec_.architectures_size() * static_cast<int64_t>(SeedsOf(spec_).size());
    if (cells > kMaxCells)
      return Add("", "the grid has " + std::to_string(cells) + " pretraining cells; at most " +
                         std::to_string(kMaxCells) + " make a sweep");
    const auto shapes = ShapesOf(spec_);
    std::set<std::string> names;
    for (const GridShape& shape : *shapes)
      if (!names.insert(shape.name).second)
        Add(At("sizes", shape.size_index), "two cells would be called '" + shape.name + "': rename a size");
    CheckOnly(*shapes);
    if (IsBuiltin(spec_)) CheckShapes(*shapes);
  }

  void CheckOnly(const std::vector<GridShape>& shapes) {
    if (spec_.only().empty()) return;
    std::vector<std::string> names;
    for (const v1::ArchitectureSpec& architecture : spec_.architectures())
      for (const GridShape& shape : shapes)
        for (const uint64_t seed : SeedsOf(spec_)) names.push_back(CellName(architecture, shape, seed));
    const std::set<std::string> known(names.begin(), names.end());
    for (int i = 0; i < spec_.only_size(); ++i) {
      if (known.contains(spec_.only(i))) continue;
      const std::string near = common::NearestName(spec_.only(i), names);
      Add(At("only", i), "only has '" + spec_.only(i) + "', which is no pretraining cell of the grid" +
                             (near.empty() ? "" : "; did you mean '" + near + "'?"));
    }
  }

  void CheckShapes(const std::vector<GridShape>& shapes) {
    for (int i = 0; i < spec_.architectures_size(); ++i) {
      const arch::Architecture& architecture = **arch::FindArchitecture(spec_.architectures(i).name());
      const auto options = OptionsOf(spec_, architecture, StructToJson(spec_.architectures(i).options()));
      CheckLengths(At("architectures", i) + ".options", LabelOf(spec_.architectures(i)),
                   architecture.LongestLengths(*options));
      for (const GridShape& shape : shapes)
        if (const auto fits = architecture.CheckShape(shape.shape, *options); !fits)
          Add(At("sizes", shape.size_index),
              LabelOf(spec_.architectures(i)) + " cannot take size " + shape.name + ": " + fits.error().message);
    }
  }

  // Inputs of fine-tuning are no mistake: longer ones are cut and counted, as always.
  void CheckLengths(const std::string& path, const std::string& label, const arch::Lengths& longest) {
    const auto check = [&](const char* phase, const char* what, int64_t length, int64_t limit) {
      if (length > limit)
        Add(path, label + " is built for " + std::to_string(limit) + " " + what + " tokens, and " + phase + " has " +
                      std::to_string(length));
    };
    const arch::Lengths pretraining = PretrainingStep(spec_).lengths;
    check("pretraining", "input", pretraining.inputs, longest.inputs);
    check("pretraining", "target", pretraining.targets, longest.targets);
    if (spec_.has_finetuning()) check("finetuning", "target", FinetuningStep(spec_).lengths.targets, longest.targets);
  }

  const v1::SweepSpec& spec_;
  std::vector<SpecProblem>* problems_;
};

}  // namespace

bool IsName(const std::string& text) {
  return !text.empty() && text.size() <= 64 && text[0] != '-' && text[0] != '.' &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
             std::string::npos;
}

std::vector<SpecProblem> CheckFields(const v1::SweepSpec& spec) {
  std::vector<SpecProblem> problems;
  FieldChecker(&problems).Walk(spec, "");
  return problems;
}

std::vector<SpecProblem> CheckSpec(const v1::SweepSpec& spec) {
  std::vector<SpecProblem> problems = CheckFields(spec);
  SpecChecker(spec, &problems).Check();
  return problems;
}

}  // namespace allometry::coordinator
