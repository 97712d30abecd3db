#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "common/json.h"
#include "common/result.h"
#include "worker/trainer/checkpoint/safetensors.h"
#include "worker/trainer/engine/run_config.h"

namespace allometry::trainer {

// The folder `model` that pretraining leaves and fine-tuning begins with: model.safetensors (float32, by the names of
// the architecture's parameters) and model.json (what the model is).
inline constexpr char kModelJson[] = "model.json";
inline constexpr char kModelTensors[] = "model.safetensors";

// The content of model.json: what a child compares with itself, and who wrote it with which precision.
common::Json ModelToJson(const ModelConfig& model, const std::string& precision);

// Writes both files into an existing folder, model.json last.
common::Status WriteModelFolder(const std::filesystem::path& folder, const ModelConfig& model,
                                const std::string& precision, const std::map<std::string, at::Tensor>& weights);

// What a folder holds, without its tensors.
struct TrainedModel {
  ModelConfig model;
  std::string precision;        // empty: not recorded
  std::optional<int64_t> step;  // of a checkpoint that a run goes on from
};

// Of a `model` folder, or of a checkpoint `RUN/checkpoint/step-N`, whose model RUN/run.json describes. kNotFound if the
// folder is neither; other errors name the file, what is wrong and what to do.
common::Result<TrainedModel> ReadTrainedModel(const std::filesystem::path& folder);
// Its weights by name, verified against their hash where the folder records one.
common::Result<std::map<std::string, at::Tensor>> ReadTrainedWeights(const std::filesystem::path& folder);

}  // namespace allometry::trainer
