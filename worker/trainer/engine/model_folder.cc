#include "worker/trainer/engine/model_folder.h"

#include <ATen/ATen.h>

#include "common/files.h"
#include "common/version.h"
#include "worker/trainer/checkpoint/checkpoint_store.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using common::Json;
using common::Result;

constexpr int kFormatVersion = 1;
constexpr char kWeightsPrefix[] = "weights/";

bool IsCheckpoint(const fs::path& folder) { return fs::exists(folder / kCheckpointJson); }

// RUN/run.json of RUN/checkpoint/step-N.
fs::path RunFileOf(const fs::path& checkpoint) {
  return (fs::absolute(checkpoint) / "").lexically_normal().parent_path().parent_path().parent_path() / "run.json";
}

Result<RunConfig> ReadRunOf(const fs::path& checkpoint) {
  auto run = ReadRunConfig(RunFileOf(checkpoint));
  if (run) return run;
  return common::Error{run.error().code,
                       "the checkpoint '" + checkpoint.string() +
                           "' does not say what model it is of, and its run's file does not either "
                           "(leave it where the trainer wrote it, or take the run's 'model' folder): " +
                           run.error().message};
}

Result<TrainedModel> ModelOfCheckpoint(const fs::path& folder) {
  ALLO_ASSIGN_OR_RETURN(const RunConfig run, ReadRunOf(folder));
  ALLO_ASSIGN_OR_RETURN(const Json state, common::ReadJsonFile(folder / kCheckpointJson));
  TrainedModel trained;
  if (run.kind == "finetune") {
    ALLO_ASSIGN_OR_RETURN(const FinetuneConfig config, ParseFinetune(run.run));
    trained.model = config.training.model;
  } else {
    ALLO_ASSIGN_OR_RETURN(const PretrainConfig config, ParsePretrain(run.run));
    trained.model = config.training.model;
  }
  if (state.is_object() && state.contains("step") && state["step"].is_number_integer())
    trained.step = state["step"].get<int64_t>();
  return trained;
}

Result<TrainedModel> ModelOfFolder(const fs::path& path) {
  ALLO_ASSIGN_OR_RETURN(const Json file, common::ReadJsonFile(path));
  const auto integer = [&](const char* key) {
    return file.is_object() && file.contains(key) && file[key].is_number_integer() ? file[key].get<int64_t>() : 0;
  };
  if (integer("format_version") != kFormatVersion)
    return common::DataLoss("'" + path.string() + "' is no model of format " + std::to_string(kFormatVersion));
  TrainedModel trained;
  if (file.contains("precision") && file["precision"].is_string()) trained.precision = file["precision"];
  Json model = Json::object();
  for (const char* key : {"architecture", "shape", "options"})
    if (file.contains(key)) model[key] = file[key];
  ALLO_ASSIGN_OR_RETURN(trained.model, ParseModel(model, "'" + path.string() + "'", integer("numerics_version")));
  return trained;
}

Result<std::map<std::string, at::Tensor>> WeightsOfCheckpoint(const fs::path& folder) {
  ALLO_ASSIGN_OR_RETURN(const RunConfig run, ReadRunOf(folder));
  // A store without a directory of its own: it reads and leaves everything as it is.
  ALLO_ASSIGN_OR_RETURN(const Checkpoint checkpoint, CheckpointStore({}, run.run_sha256, {}).Load(folder));
  std::map<std::string, at::Tensor> weights;
  for (const auto& [name, tensor] : checkpoint.tensors)
    if (name.starts_with(kWeightsPrefix)) weights[name.substr(sizeof kWeightsPrefix - 1)] = tensor;
  return weights;
}

}  // namespace

Json ModelToJson(const ModelConfig& model, const std::string& precision) {
  return {{"format_version", kFormatVersion},
          {"architecture", model.architecture},
          {"shape", ShapeToJson(model.shape)},
          {"options", model.options},
          {"numerics_version", (*arch::FindArchitecture(model.architecture))->numerics_version()},
          {"precision", precision},
          {"written_by", std::string("allometry ") + common::kVersion}};
}

common::Status WriteModelFolder(const fs::path& folder, const ModelConfig& model, const std::string& precision,
                                const std::map<std::string, at::Tensor>& weights) {
  auto written = WriteSafetensors(folder / kModelTensors, {weights, {{"format", "pt"}}});
  if (!written) return written.error();
  return common::WriteFileAtomically(folder / kModelJson, ModelToJson(model, precision).dump(1) + "\n");
}

Result<TrainedModel> ReadTrainedModel(const fs::path& folder) {
  if (fs::exists(folder / kModelJson)) return ModelOfFolder(folder / kModelJson);
  if (IsCheckpoint(folder)) return ModelOfCheckpoint(folder);
  return common::NotFound("'" + folder.string() + "' holds no model: give a folder with " + kModelJson +
                          " (a run's output 'model') or with " + kCheckpointJson + " (RUN/checkpoint/step-N)");
}

Result<std::map<std::string, at::Tensor>> ReadTrainedWeights(const fs::path& folder) {
  if (!fs::exists(folder / kModelJson) && IsCheckpoint(folder)) return WeightsOfCheckpoint(folder);
  ALLO_ASSIGN_OR_RETURN(TensorFile file, ReadSafetensors(folder / kModelTensors));
  return std::move(file.tensors);
}

}  // namespace allometry::trainer
