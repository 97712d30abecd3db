#include "worker/trainer/engine/session.h"

#include <ATen/ATen.h>

#include <cstdio>

#include "common/fault_point.h"
#include "common/files.h"
#include "worker/trainer/checkpoint/safetensors.h"
#include "worker/trainer/engine/device.h"
#include "worker/trainer/engine/model_folder.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using common::Json;

const arch::Architecture& ArchitectureOf(const ModelConfig& model) {
  return **arch::FindArchitecture(model.architecture);
}

}  // namespace

Ending EndingOf(const common::Error& error) {
  const bool configuration = error.code == common::ErrorCode::kInvalidArgument;
  return {configuration ? ExitCode::kConfigurationError : ExitCode::kDataError, error.message};
}

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
  ALLO_ASSIGN_OR_RETURN(const at::Device device, OpenDevice(context.config.execution.device));
  ALLO_ASSIGN_OR_RETURN(const std::string precision, ResolvePrecision(context.config.execution.precision, device));
  std::unique_ptr<TrainingSession> session(new TrainingSession(context, training, device, precision));
  ALLO_ASSIGN_OR_RETURN(session->optimizer_,
                        MakeOptimizer(training.optimization.optimizer, session->state_->masters()));
  return session;
}

TrainingSession::TrainingSession(const RunContext& context, const TrainingConfig& training, at::Device device,
                                 std::string precision)
    : context_(context), training_(training), device_(device), precision_(std::move(precision)) {
  const ModelConfig& model = training.model;
  const ModelSpec spec{model.architecture, model.shape,      model.options,
                       training.dropout,   training.lengths, training.z_loss};
  state_ = std::make_unique<ModelState>(MakeModel(spec, training.seed), device_, precision_ == "bf16");
  state_->model().set_recompute(context.config.execution.activation_checkpointing);
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
                     context_.events, context_.run_directory},
                    std::move(work));
  const Ending ending = loop.Run();
  summary_ = loop.summary();
  return ending;
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
          {"device_seconds", summary_.device_seconds},
          {"data_wait_fraction", summary_.data_wait_seconds / std::max(summary_.device_seconds, 1e-9)},
          {"peak_memory_bytes", static_cast<double>(PeakMemoryBytes(device_))}};
}

int64_t TrainingSession::micro_batch() const {
  return MicroBatch(context_.config.execution.micro_batch, training_.batch_sequences, device_);
}

common::Result<Json> TrainingSession::WriteModel() const {
  if (!context_.config.execution.keep_final) return Json::object();
  const fs::path folder = context_.run_directory / "model";
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(folder));
  ALLO_RETURN_IF_ERROR(WriteModelFolder(folder, training_.model, precision_, state_->Weights()));
  return Json{{"model", "model"}};
}

Json TrainingSession::Report() const {
  return {{"precision", precision_},
          {"resumed_step", summary_.resumed_step},
          {"selected_step", summary_.selected_step},
          {"target_tokens", summary_.target_tokens},
          {"data_wait_seconds", summary_.data_wait_seconds}};
}

}  // namespace allometry::trainer
