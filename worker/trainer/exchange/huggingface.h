#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/result.h"
#include "worker/trainer/engine/run_config.h"

// Models that Hugging Face's transformers has too, as its config.json and its tensors describe them:
//
//   ours                                             theirs
//   transformer                                      T5ForConditionalGeneration, T5 v1.0: relu, tied embeddings
//   glu, activation gelu, tied_embedding false       T5ForConditionalGeneration, T5 v1.1: gated-gelu, untied
//   switch, placement huggingface or switch_base     SwitchTransformersForConditionalGeneration, sparse step 4 or 2
//
// All functions are pure. Errors are kInvalidArgument for what one side does not have, kDataLoss for tensors that are
// not those of the model; they say what is wrong and what would be right.
namespace allometry::trainer {

using Tensors = std::map<std::string, at::Tensor>;
using TensorShapes = std::map<std::string, std::vector<int64_t>>;

// The config.json that makes transformers build this model.
common::Result<common::Json> HuggingFaceConfig(const ModelConfig& model);
// The reverse. Whatever their model would compute otherwise than ours is refused.
common::Result<ModelConfig> ModelOfHuggingFace(const common::Json& config);

// The tensors of their model by name. Ours have the same names and shapes, but for experts, which Hugging Face keeps
// one by one (SplitExperts in models/switch.h).
TensorShapes HuggingFaceTensors(const ModelConfig& model);

common::Result<Tensors> WeightsToHuggingFace(const ModelConfig& model, const Tensors& ours);
// Takes float32, float16 and bfloat16; gives float32.
common::Result<Tensors> WeightsFromHuggingFace(const ModelConfig& model, const Tensors& theirs);

}  // namespace allometry::trainer
