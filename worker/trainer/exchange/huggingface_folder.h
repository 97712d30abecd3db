#pragma once

#include <filesystem>

#include "common/result.h"
#include "worker/trainer/exchange/huggingface.h"

// Models as folders: what transformers' from_pretrained reads and save_pretrained writes, and our own.
namespace allometry::trainer {

inline constexpr char kConfigJson[] = "config.json";

// The model that a folder's config.json describes, without its tensors.
common::Result<ModelConfig> ReadHuggingFaceModel(const std::filesystem::path& folder);

// Writes config.json, generation_config.json and model.safetensors for the trained model in `folder`
// (engine/model_folder.h), and spiece.model: `tokenizer`, or the folder's own if `tokenizer` is empty and it has one.
// `out` appears whole, by rename; it must not exist or be empty.
common::Status ExportToHuggingFace(const std::filesystem::path& folder, const std::filesystem::path& tokenizer,
                                   const std::filesystem::path& out);

// The reverse: a `model` folder as the trainer writes it, which a fine-tuning takes as its parent, from config.json and
// model.safetensors, whole or in the shards that model.safetensors.index.json lists. spiece.model comes along.
common::Status ImportFromHuggingFace(const std::filesystem::path& folder, const std::filesystem::path& out);

}  // namespace allometry::trainer
