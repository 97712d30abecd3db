#include "worker/trainer/engine/session.h"

#include <ATen/ATen.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "arch/switch.h"
#include "common/fault_point.h"
#include "common/files.h"
#include "worker/trainer/checkpoint/safetensors.h"
#include "worker/trainer/data/prepare.h"
#include "worker/trainer/engine/device.h"
#include "worker/trainer/engine/model_folder.h"
#include "worker/trainer/engine/rank_training.h"
#include "worker/trainer/engine/stop_signal.h"
#include "worker/trainer/kernels/tensor_kernels.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using common::Json;

constexpr int64_t kMostRowsOfGpu = 128;  // T5's own batch: wide enough to fill the largest device with a base model

// The file's content once it is there. Rank 0 may still be fetching its inputs, however long; who waits in vain is
// ended by its worker.
std::string WaitForWord(const fs::path& path) {
  std::error_code ec;
  while (!fs::exists(path, ec)) {
    if (StopRequested()) throw MeetingCancelled("stopped while waiting for rank 0's word in '" + path.string() + "'");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  auto word = common::ReadFile(path);
  if (!word) throw PeerLost(word.error().message);
  return *word;
}

const arch::Architecture& ArchitectureOf(const ModelConfig& model) {
  return **arch::FindArchitecture(model.architecture);
}

}  // namespace

Ending EndingOf(const common::Error& error) {
  const bool configuration = error.code == common::ErrorCode::kInvalidArgument;
  return {configuration ? ExitCode::kConfigurationError : ExitCode::kDataError, error.message};
}

Ending EndingOfData(const common::Error& error) { return {ExitCodeOfDataError(error), error.message}; }

common::Result<fs::path> InputFolder(const RunContext& context, const std::string& name) {
  const auto& inputs = context.config.execution.inputs;
  auto found = inputs.find(name);
  if (found == inputs.end())
    return common::InvalidArgument("execution.inputs." + name + " is missing: this kind of run needs it");
  std::error_code ec;
  if (!fs::is_directory(found->second, ec))
    return common::NotFound("execution.inputs." + name + ": '" + found->second.string() + "' is no folder");
  return found->second;
}

Ending WriteResult(const RunContext& context, const std::map<std::string, double>& metrics, const Json& scores,
                   const Json& outputs, const Json& report) {
  common::FaultPoint("trainer.outputs_written");
  auto written = context.events.Write({{"event", "result"},
                                       {"metrics", NumbersToJson(metrics)},
                                       {"scores", scores},
                                       {"outputs", outputs},
                                       {"report", report}});
  if (!written) return {ExitCode::kCrash, written.error().message};
  common::FaultPoint("trainer.result_written");
  return {};
}

common::Result<std::unique_ptr<TrainingSession>> TrainingSession::Open(const RunContext& context,
                                                                       const TrainingConfig& training) {
  ALLO_ASSIGN_OR_RETURN(const at::Device device,
                        OpenDevice(context.config.execution.device, context.config.execution.device_share));
  if (device.is_cuda() && context.config.execution.deterministic) UseDeterministicOperations();
  ALLO_ASSIGN_OR_RETURN(const std::string precision, ResolvePrecision(context.config.execution.precision, device));
  std::unique_ptr<TrainingSession> session(new TrainingSession(context, training, device, precision));
  session->RequireRoom();
  ALLO_RETURN_IF_ERROR(session->JoinRanks());
  session->AgreeOnKernels();
  session->BuildModel();
  ALLO_RETURN_IF_ERROR(session->BuildOptimizer());
  return session;
}

// What other programs have of a GPU's memory does not come back by waiting, nor by a smaller micro-batch.
void TrainingSession::RequireRoom() {
  room_bytes_ = ShareBytes(device_, context_.config.execution.device_share);
  if (!device_.is_cuda()) return;
  MemoryLimits limits = Limits();
  limits.ranks = context_.config.execution.ranks;
  const bool possible = FitsAtAll(training_, precision_, limits);
  room_bytes_ = limits.bytes = std::min(room_bytes_, FreeMemoryBytes(device_));
  if (possible && !FitsAtAll(training_, precision_, limits))
    throw DeviceUnusable(ExitCode::kDeviceFull, "of " + context_.config.execution.device + "'s memory only " +
                                                    std::to_string(room_bytes_) +
                                                    " bytes are free: other programs use it");
}

// Rank 0's word goes into the file that the other ranks wait for, and as an event to the worker, which brings it there.
common::Status TrainingSession::JoinRanks() {
  const Execution& execution = context_.config.execution;
  if (execution.ranks == 1) return common::Ok();
  if (training_.batch_sequences < execution.ranks)
    return common::InvalidArgument("run.batch_sequences is " + std::to_string(training_.batch_sequences) +
                                   ", too few for execution.ranks, which is " + std::to_string(execution.ranks));
  MeshOptions options;
  options.rank = static_cast<int>(execution.rank);
  options.ranks = static_cast<int>(execution.ranks);
  options.listen = execution.listen;
  options.connect_timeout_s = options.silence_timeout_s = execution.peer_timeout_s;
  options.cancelled = StopRequested;
  options.publish_word = [&](const std::string& word) {
    auto told = common::WriteFileAtomically(execution.rendezvous, word, 0600);
    if (told) told = context_.events.Write({{"event", "rendezvous"}, {"value", word}});
    if (!told) throw std::runtime_error(told.error().message);
  };
  options.wait_for_word = [&] { return WaitForWord(execution.rendezvous); };
  group_ = std::make_unique<RankGroup>(options, device_);
  return common::Ok();
}

void TrainingSession::AgreeOnKernels() const {
  if (!group_ || !device_.is_cuda()) return;
  const at::Tensor like = at::empty({0}, at::TensorOptions(device_).dtype(at::kFloat));
  if (AllRanksHaveKernels(*group_, like) || !kernels::KernelsFor(like)) return;
  std::fprintf(stderr, "another rank computes without kernels, so this one does too\n");
  kernels::UseModule(false);
}

// A machine's CPUs are shared by all ranks that it has: rank by rank as if all were here.
MemoryLimits TrainingSession::Limits() const {
  const int64_t ranks = group_ ? group_->size() : 1;
  MemoryLimits limits;
  limits.on_gpu = device_.is_cuda();
  limits.rows = group_ ? group_->RowsOf(training_.batch_sequences).count : training_.batch_sequences;
  limits.most_rows = limits.on_gpu ? kMostRowsOfGpu : limits.rows;
  limits.bytes = room_bytes_ / (limits.on_gpu ? 1 : ranks);
  return limits;
}

// Gradients and optimiser states are divided among the ranks when one of them does not hold them whole.
bool TrainingSession::IsSharded() const {
  const std::string& asked = context_.config.execution.sharding;
  if (!group_ || asked != "auto") return group_ && asked == "optimizer";
  return group_->FromFirst(NeedsSharding(training_, precision_, Limits()) ? "sharded" : "whole") == "sharded";
}

// Divided experts need passes of equal sizes on all ranks.
bool TrainingSession::DividesExperts() const {
  const std::string& asked = context_.config.execution.experts;
  if (!group_ || asked == "whole" || training_.model.architecture != "switch") return false;
  const bool possible = arch::kSwitchExperts % group_->size() == 0 && training_.batch_sequences % group_->size() == 0;
  return possible && (asked == "divided" || sharded_);
}

// One plan for all ranks: the smallest.
MemoryPlan TrainingSession::ChoosePlan() const {
  const MemoryPlan own = ChooseOwnPlan();
  if (!group_) return own;
  const std::vector<std::string> plans = group_->AtFirst(Json{own.micro_batch, own.recompute}.dump());
  MemoryPlan common = own;
  for (const std::string& text : plans) {
    const Json plan = Json::parse(text);
    common.micro_batch = std::min(common.micro_batch, plan.at(0).get<int64_t>());
    common.recompute |= plan.at(1).get<bool>();
  }
  const Json told = Json::parse(group_->FromFirst(Json{common.micro_batch, common.recompute}.dump()));
  return {told.at(0).get<int64_t>(), told.at(1).get<bool>()};
}

MemoryPlan TrainingSession::ChooseOwnPlan() const {
  const Execution& execution = context_.config.execution;
  MemoryLimits limits = Limits();
  if (sharded_) limits.ranks = group_->size();
  limits.recompute = execution.activation_checkpointing;
  if (execution.micro_batch > 0) return PlanGiven(training_, precision_, limits, execution.micro_batch);
  return PlanMemory(training_, precision_, limits);
}

common::Status TrainingSession::BuildOptimizer() {
  const OptimizerOptions& options = training_.optimization.optimizer;
  if (!group_) {
    ALLO_ASSIGN_OR_RETURN(optimizer_, MakeOptimizer(options, state_->masters()));
    return common::Ok();
  }
  ALLO_ASSIGN_OR_RETURN(RankTraining training, TrainOnRanks(options, sharded_, *state_, *group_));
  optimizer_ = std::move(training.optimizer);
  reducer_ = std::move(training.reducer);
  return common::Ok();
}

TrainingSession::TrainingSession(const RunContext& context, const TrainingConfig& training, at::Device device,
                                 std::string precision)
    : context_(context), training_(training), device_(device), precision_(std::move(precision)) {}

void TrainingSession::BuildModel() {
  const ModelConfig& model = training_.model;
  const ModelSpec spec{model.architecture, model.shape,       model.options,
                       training_.dropout,  training_.lengths, training_.z_loss};
  const auto type = precision_ == "bf16" ? at::kBFloat16 : precision_ == "fp64" ? at::kDouble : at::kFloat;
  const std::shared_ptr<Model> built = MakeModel(spec, training_.seed);
  sharded_ = IsSharded();
  std::set<std::string> divided;
  if (DividesExperts()) divided = DivideExpertsAmong(*group_, *built, training_.batch_sequences);
  state_ = std::make_unique<ModelState>(built, device_, type);
  if (!divided.empty()) state_->SetDivided(&group_->tensors(), divided);
  plan_ = ChoosePlan();
  state_->model().set_recompute(plan_.recompute);
}

common::Status TrainingSession::LoadParent(const fs::path& folder) {
  ALLO_ASSIGN_OR_RETURN(const Json parent, common::ReadJsonFile(folder / kModelJson));
  const Json mine = ModelToJson(training_.model, precision_);
  for (const char* key : {"architecture", "shape", "options", "numerics_version"})
    if (!parent.is_object() || parent.value(key, Json()) != mine[key])
      return common::InvalidArgument(std::string("run.model: the parent's ") + key + " is " +
                                     (parent.is_object() ? parent.value(key, Json()).dump() : "missing") +
                                     ", this run's " + mine[key].dump());
  ALLO_ASSIGN_OR_RETURN(const TensorFile file, ReadSafetensors(folder / kModelTensors));
  return state_->LoadWeights(file.tensors);
}

Ending TrainingSession::Train(LoopWork work) {
  CheckpointStore checkpoints(context_.run_directory / "checkpoint", context_.config.run_sha256,
                              [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); });
  TrainingLoop loop({training_, context_.config.execution, device_, precision_, *state_, *optimizer_, checkpoints,
                     context_.events, context_.run_directory, plan_.micro_batch, group_.get(), sharded_, Graphs()},
                    std::move(work));
  const Ending ending = loop.Run();
  summary_ = loop.summary();
  return ending;
}

// On all ranks or on none.
StepGraphMaker TrainingSession::Graphs() const {
  const StepGraphMaker own = OwnGraphs();
  if (!group_ || !device_.is_cuda() || group_->All(own != nullptr)) return own;
  if (own) std::fprintf(stderr, "another rank takes no steps as CUDA graphs, so this one does not either\n");
  return nullptr;
}

// Where the kernels do not make the optimiser's step a step cannot be one.
StepGraphMaker TrainingSession::OwnGraphs() const {
  if (!device_.is_cuda() || !context_.config.execution.graphs || !optimizer_->UsesKernels()) return nullptr;
  std::string why_not;
  StepGraphMaker graphs = CudaGraphs(&why_not);
  if (!graphs)
    std::fprintf(stderr, "steps are taken one operation at a time, without CUDA graphs: %s\n", why_not.c_str());
  return graphs;
}

std::map<std::string, double> TrainingSession::Metrics(arch::Lengths lengths) const {
  const ModelConfig& model = training_.model;
  const arch::ParameterCount parameters = ArchitectureOf(model).CountParameters(model.shape, model.options);
  const arch::FlopCount flops = ArchitectureOf(model).CountFlops(model.shape, model.options, lengths);
  const double examples = static_cast<double>(summary_.steps) * static_cast<double>(training_.batch_sequences);
  const double tokens = examples * static_cast<double>(lengths.inputs);
  return {{"parameters", static_cast<double>(parameters.total)},
          {"non_embedding_parameters", static_cast<double>(parameters.non_embedding)},
          {"active_parameters", static_cast<double>(parameters.active)},
          {"forward_flops", static_cast<double>(flops.forward)},
          {"training_flops", 3.0 * static_cast<double>(flops.forward) * examples},
          {"steps", static_cast<double>(summary_.steps)},
          {"tokens", tokens},
          {"tokens_per_second", tokens / std::max(summary_.device_seconds, 1e-9)},
          {"device_seconds", summary_.device_seconds * context_.config.execution.device_share *
                                 static_cast<double>(group_ ? group_->size() : 1)},
          {"data_wait_fraction", summary_.data_wait_seconds / std::max(summary_.device_seconds, 1e-9)},
          {"peak_memory_bytes", static_cast<double>(PeakMemoryBytes(device_))}};
}

common::Result<Json> TrainingSession::WriteModel() const {
  if (!context_.config.execution.keep_final) return Json::object();
  const fs::path folder = context_.run_directory / "model";
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(folder));
  ALLO_RETURN_IF_ERROR(WriteModelFolder(folder, training_.model, precision_, state_->Weights()));
  return Json{{"model", "model"}};
}

Json TrainingSession::Report() const {
  Json report{{"precision", precision_},
              {"resumed_step", summary_.resumed_step},
              {"selected_step", summary_.selected_step},
              {"target_tokens", summary_.target_tokens},
              {"data_wait_seconds", summary_.data_wait_seconds},
              {"checkpoint_seconds", summary_.checkpoint_seconds},
              {"micro_batch", summary_.micro_batch},
              {"kernels", kernels::KernelsFor(state_->masters().at(0).value) != nullptr},
              {"graph_launches", summary_.graph_launches},
              {"activation_checkpointing", state_->model().recompute()}};
  if (!group_) return report;
  report["ranks"] = group_->size();
  report["sharding"] = sharded_ ? "optimizer" : "none";
  report["experts"] = DividesExperts() ? "divided" : "whole";
  // Of rank 0 in this attempt.
  report["sent_bytes"] = group_->tensors().bytes_sent();
  report["exchange_wait_seconds"] = reducer_->wait_seconds();
  report["last_bucket_bytes"] = reducer_->last_bucket_bytes();
  return report;
}

}  // namespace allometry::trainer
