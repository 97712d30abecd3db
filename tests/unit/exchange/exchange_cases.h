#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "arch/architecture.h"
#include "worker/trainer/exchange/huggingface.h"
#include "worker/trainer/models/model.h"

namespace allometry::trainer {

inline const arch::Shape kSmallShape{6, 4, 8, 24, 2, 3, 40};

inline ModelConfig Config(const std::string& architecture, const common::Json& options = common::Json::object(),
                          arch::Shape shape = kSmallShape) {
  return {architecture, shape, *arch::CompleteOptions(**arch::FindArchitecture(architecture), options)};
}

inline ModelConfig T5() { return Config("transformer"); }
inline ModelConfig T5v11() { return Config("glu", {{"activation", "gelu"}, {"tied_embedding", false}}); }

// The models that Hugging Face has.
inline std::vector<ModelConfig> Exchangeable() {
  return {T5(), T5v11(), Config("switch", {{"placement", "huggingface"}}),
          Config("switch", {{"placement", "switch_base"}})};
}

// Weights as the trainer keeps them.
inline Tensors FreshWeights(const ModelConfig& model) {
  Tensors weights;
  const auto made = MakeModel({model.architecture, model.shape, model.options}, 7);
  for (const auto& item : made->named_parameters()) weights[item.key()] = item.value().detach();
  return weights;
}

inline bool BitEqual(const Tensors& a, const Tensors& b) {
  return std::ranges::equal(a, b, [](const auto& x, const auto& y) {
    return x.first == y.first && x.second.scalar_type() == y.second.scalar_type() && at::equal(x.second, y.second);
  });
}

}  // namespace allometry::trainer
