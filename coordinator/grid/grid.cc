#include "coordinator/grid/grid.h"

#include <algorithm>
#include <map>
#include <set>

#include "coordinator/grid/check.h"
#include "coordinator/grid/gpu_share.h"
#include "coordinator/grid/identity.h"
#include "coordinator/grid/known_tasks.h"
#include "coordinator/grid/runs.h"
#include "coordinator/grid/shapes.h"

namespace allometry::coordinator {
namespace {

using common::Json;

common::Error Listed(const std::vector<SpecProblem>& problems) {
  std::string text;
  for (const SpecProblem& problem : problems) text += (text.empty() ? "" : "\n") + problem.message;
  return common::InvalidArgument(text);
}

bool IsSha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// Roles of the files that pretraining's text comes from.
std::vector<std::string> RolesOfText(const v1::SweepSpec& spec) {
  const v1::DataSpec& data = spec.data();
  if (!data.path().empty()) return {"dataset"};
  std::vector<std::string> roles;
  for (const v1::DataPartSpec& part : data.mixture()) roles.push_back("dataset:" + PartNameOf(part));
  if (roles.empty()) roles.push_back("corpus");
  if (data.valid_size() > 0) roles.push_back("valid");
  return roles;
}

common::Status CheckManifest(const v1::SweepSpec& spec, const std::vector<v1::ManifestFile>& manifest) {
  const auto has = [&](const std::string& role) {
    return std::ranges::any_of(manifest, [&](const v1::ManifestFile& file) { return file.role() == role; });
  };
  for (const v1::ManifestFile& file : manifest)
    if (!IsSha256(file.sha256()))
      return common::InvalidArgument("the manifest's sha256 of " + file.name() + " is not 64 hexadecimal digits");
  for (const std::string& role : RolesOfText(spec))
    if (!has(role)) return common::InvalidArgument("the manifest has no file of the " + role);
  if (!IsBuiltin(spec)) return common::Ok();
  if (!spec.tokenizer().model().empty() && !has("tokenizer"))
    return common::InvalidArgument("the manifest lacks the tokenizer's model " + spec.tokenizer().model());
  for (const v1::TaskSpec& task : TasksOf(spec))
    if (!has("task:" + task.name()))
      return common::InvalidArgument("the manifest has no file of the task " + task.name());
  return common::Ok();
}

class Expander {
 public:
  Expander(const v1::SweepSpec& spec, const std::vector<v1::ManifestFile>& manifest)
      : spec_(spec),
        manifest_(manifest),
        tags_(spec.tags().begin(), spec.tags().end()),
        only_(spec.only().begin(), spec.only().end()),
        finetunings_(FinetuningsOf(spec)) {}

  common::Result<std::vector<Cell>> Expand() {
    ALLO_ASSIGN_OR_RETURN(const std::vector<GridShape> shapes, ShapesOf(spec_));
    if (IsBuiltin(spec_)) {
      AddPrepareText();
      for (Finetuning& finetuning : finetunings_) AddPrepareTasks(&finetuning);
    }
    for (const v1::ArchitectureSpec& architecture : spec_.architectures())
      for (const GridShape& shape : shapes) AddShape(architecture, shape);
    ALLO_RETURN_IF_ERROR(CheckIdentities());
    return std::move(cells_);
  }

 private:
  Cell NewCell(v1::RunKind kind, const Json& run) {
    Cell cell;
    cell.kind = kind;
    cell.trainer = IsBuiltin(spec_) ? "builtin" : spec_.trainer();
    cell.precision = spec_.precision().empty() ? "auto" : spec_.precision();
    // Text is prepared the same at every precision.
    cell.identity = IdentityOf(run, kind == v1::RUN_KIND_PREPARE ? "auto" : cell.precision);
    cell.run_json = common::CanonicalJson(run);
    cell.tags = tags_;
    return cell;
  }

  // The tasks that a model is fine-tuned on together.
  struct Finetuning {
    std::string suffix;  // behind the name of the pretraining's cell
    std::vector<v1::TaskSpec> tasks;
    std::string data = {};  // identity of the run that prepares the tasks
  };

  // Text and tasks are prepared apart: another task changes no pretraining.
  void AddPrepareText() {
    Cell cell = NewCell(v1::RUN_KIND_PREPARE, PrepareTextRun(spec_, manifest_));
    cell.name = "prepare";
    for (const v1::ManifestFile& file : manifest_)
      if (!file.role().starts_with("task:")) cell.files.push_back(file);
    text_ = cell.identity;
    cells_.push_back(std::move(cell));
  }

  void AddPrepareTasks(Finetuning* finetuning) {
    Cell cell = NewCell(v1::RUN_KIND_PREPARE, PrepareTasksRun(spec_, manifest_, finetuning->tasks, text_));
    cell.name = "prepare" + finetuning->suffix;
    cell.parents.push_back({"data", text_});
    for (const v1::ManifestFile& file : manifest_)
      for (const v1::TaskSpec& task : finetuning->tasks)
        if (file.role() == "task:" + task.name()) cell.files.push_back(file);
    finetuning->data = cell.identity;
    cells_.push_back(std::move(cell));
  }

  void AddShape(const v1::ArchitectureSpec& architecture, const GridShape& shape) {
    const Json model = ModelOf(spec_, architecture, shape);
    const v1::Costs pretraining = PretrainingCosts(model, shape);
    const v1::Costs finetuning = spec_.has_finetuning() ? FinetuningCosts(model, shape) : v1::Costs();
    for (uint64_t seed : SeedsOf(spec_)) {
      const std::string name = CellName(architecture, shape, seed);
      if (!only_.empty() && !only_.contains(name)) continue;
      const auto place = [&](Cell cell, const std::string& cell_name, const v1::Costs& costs) {
        cell.name = cell_name;
        cell.architecture = LabelOf(architecture);
        cell.size = shape.name;
        cell.seed = seed;
        cell.costs = costs;
        SetDevices(model, shape, &cell);
        if (!IsBuiltin(spec_)) cell.files = FilesForOwnTrainer(cell.kind);
        cells_.push_back(std::move(cell));
      };
      Cell pretrain = Pretrain(model, pretraining.steps(), seed);
      const std::string parent = pretrain.identity;
      place(std::move(pretrain), name, pretraining);
      for (const Finetuning& one : finetunings_)
        place(Finetune(model, one, parent, seed), name + one.suffix, finetuning);
    }
  }

  // Fine-tuning runs where its pretraining did: what the memory asked for, it asks for again.
  void SetDevices(const Json& model, const GridShape& shape, Cell* cell) const {
    const bool pretraining = cell->kind == v1::RUN_KIND_PRETRAIN;
    const StepSize step = pretraining ? PretrainingStep(spec_) : FinetuningStep(spec_);
    cell->devices = *ParseDevices(DevicesText(spec_, spec_.sizes(shape.size_index)));
    cell->most_devices = std::min(step.batch_sequences, kMostDevices);
    const int64_t slots = *ParseSlotsPerGpu(SlotsPerGpuText(spec_, spec_.sizes(shape.size_index)));
    if (slots > 0)
      cell->slots_per_gpu = slots;
    else if (cell->devices == 1 && IsBuiltin(spec_))
      cell->slots_per_gpu = PlannedSlots(model, shape, step, *cell);
  }

  int64_t PlannedSlots(const Json& model, const GridShape& shape, const StepSize& step, const Cell& cell) const {
    const std::string& optimizer =
        (cell.kind == v1::RUN_KIND_PRETRAIN ? spec_.pretraining().optimizer() : spec_.finetuning().optimizer()).name();
    const int64_t rows = std::min(step.batch_sequences, kMostRowsOfGpu);
    return SlotsPerGpu(StepOnGpu(shape.shape, cell.costs.forward_flops(), cell.costs.parameters(),
                                 MemoryOnGpu(model, shape, step, rows, optimizer), step.batch_sequences, rows));
  }

  arch::MemoryEstimate MemoryOnGpu(const Json& model, const GridShape& shape, const StepSize& step, int64_t rows,
                                   const std::string& optimizer) const {
    const std::string precision = spec_.precision() == "fp32" ? "fp32" : "bf16";
    return ArchitectureOf(model)
        .EstimateMemory(shape.shape, model.at("options"), {step.lengths, rows, precision, optimizer})
        .OnGpu();
  }

  Cell Pretrain(const Json& model, int64_t steps, uint64_t seed) {
    Cell cell = NewCell(v1::RUN_KIND_PRETRAIN, PretrainRun(spec_, manifest_, model, text_, steps, seed));
    if (IsBuiltin(spec_)) cell.parents.push_back({"data", text_});
    return cell;
  }

  static std::vector<Finetuning> FinetuningsOf(const v1::SweepSpec& spec) {
    if (!spec.has_finetuning()) return {};
    const std::vector<v1::TaskSpec> tasks = TasksOf(spec);
    if (spec.finetuning().mode() != "separate") return {{"-ft", tasks}};
    std::vector<Finetuning> each;
    for (const v1::TaskSpec& task : tasks) each.push_back({"-ft-" + task.name(), {task}});
    return each;
  }

  Cell Finetune(const Json& model, const Finetuning& finetuning, const std::string& parent, uint64_t seed) {
    Cell cell = NewCell(v1::RUN_KIND_FINETUNE,
                        FinetuneRun(spec_, manifest_, model, finetuning.tasks, finetuning.data, parent, seed));
    if (IsBuiltin(spec_)) cell.parents.push_back({"data", finetuning.data});
    cell.parents.push_back({"model", parent});
    return cell;
  }

  std::vector<v1::ManifestFile> FilesForOwnTrainer(v1::RunKind kind) const {
    const std::vector<std::string> text = RolesOfText(spec_);
    std::vector<v1::ManifestFile> files;
    for (const v1::ManifestFile& file : manifest_)
      if ((std::ranges::count(text, file.role()) > 0) == (kind == v1::RUN_KIND_PRETRAIN)) files.push_back(file);
    return files;
  }

  // What a run of `steps` costs; everything but steps and tokens is zero for trainers whose models are not known here.
  v1::Costs CostsOf(const Json& model, const GridShape& shape, const StepSize& step, int64_t steps,
                    const std::string& optimizer) const {
    v1::Costs costs;
    const auto examples = static_cast<double>(steps) * static_cast<double>(step.batch_sequences);
    costs.set_steps(steps);
    costs.set_tokens(examples * static_cast<double>(step.lengths.inputs));
    if (!IsBuiltin(spec_)) return costs;
    const arch::Architecture& architecture = ArchitectureOf(model);
    const auto parameters = architecture.CountParameters(shape.shape, model.at("options"));
    const auto flops = architecture.CountFlops(shape.shape, model.at("options"), step.lengths);
    const std::string precision = spec_.precision() == "bf16" ? "bf16" : "fp32";
    const auto memory = architecture.EstimateMemory(shape.shape, model.at("options"),
                                                    {step.lengths, step.batch_sequences, precision, optimizer});
    costs.set_parameters(parameters.total);
    costs.set_non_embedding_parameters(parameters.non_embedding);
    costs.set_active_parameters(parameters.active);
    costs.set_forward_flops(flops.forward);
    costs.set_forward_flops_without_head(flops.forward_without_head);
    costs.set_mtf_multiply_adds(flops.mtf_multiply_adds);
    costs.set_six_nd(flops.six_nd_per_token * examples *
                     static_cast<double>(step.lengths.inputs + step.lengths.targets));
    costs.set_training_flops(3 * static_cast<double>(flops.forward) * examples);
    costs.set_memory_bytes(memory.total());
    costs.set_replicated_bytes(memory.process_bytes + memory.weights_bytes);
    const auto least = MemoryOnGpu(model, shape, step, 1, optimizer);
    costs.set_gpu_divided_bytes(least.gradients_bytes + least.optimizer_bytes);
    costs.set_gpu_whole_bytes(least.total() - costs.gpu_divided_bytes());
    return costs;
  }

  v1::Costs PretrainingCosts(const Json& model, const GridShape& shape) const {
    const StepSize step = PretrainingStep(spec_);
    int64_t parameters = 0, forward = 0;
    if (IsBuiltin(spec_)) {
      parameters = ArchitectureOf(model).CountParameters(shape.shape, model.at("options")).non_embedding;
      forward = ArchitectureOf(model).CountFlops(shape.shape, model.at("options"), step.lengths).forward;
    }
    return CostsOf(model, shape, step, PretrainingSteps(spec_, parameters, forward),
                   spec_.pretraining().optimizer().name());
  }

  v1::Costs FinetuningCosts(const Json& model, const GridShape& shape) const {
    return CostsOf(model, shape, FinetuningStep(spec_), FinetuningSteps(spec_), spec_.finetuning().optimizer().name());
  }

  static const arch::Architecture& ArchitectureOf(const Json& model) {
    return **arch::FindArchitecture(model.at("architecture").get<std::string>());
  }

  common::Status CheckIdentities() const {
    std::map<std::string_view, const Cell*> cells;
    for (const Cell& cell : cells_)
      if (const auto [other, fresh] = cells.emplace(cell.identity, &cell); !fresh)
        return common::InvalidArgument("cells " + other->second->name + " and " + cell.name +
                                       " are the same run under two names: delete one of them");
    return common::Ok();
  }

  const v1::SweepSpec& spec_;
  const std::vector<v1::ManifestFile>& manifest_;
  const std::map<std::string, std::string> tags_;
  const std::set<std::string> only_;  // cells to run; empty: all
  std::vector<Finetuning> finetunings_;
  std::string text_;  // identity of the run that prepares the text
  std::vector<Cell> cells_;
};

}  // namespace

common::Result<std::vector<Cell>> Expand(const v1::SweepSpec& spec, const std::vector<v1::ManifestFile>& manifest) {
  if (const std::vector<SpecProblem> problems = CheckSpec(spec); !problems.empty()) return Listed(problems);
  ALLO_RETURN_IF_ERROR(CheckManifest(spec, manifest));
  return Expander(spec, manifest).Expand();
}

}  // namespace allometry::coordinator
