#pragma once

#include <string>
#include <vector>

#include "arch/architecture.h"
#include "worker/trainer/models/model.h"

namespace allometry::trainer {

// One architecture with options, for tests that hold for every model.
struct ModelCase {
  std::string architecture;
  common::Json given;

  ModelSpec Spec(const arch::Shape& shape, double dropout = 0) const {
    const arch::Architecture& costs = **arch::FindArchitecture(architecture);
    return {architecture, shape, *arch::CompleteOptions(costs, given), dropout};
  }
  std::string Name() const { return architecture + (given.is_null() ? "" : given.dump()); }
};

// Every architecture with its defaults, and with every option changed.
inline std::vector<ModelCase> ModelCases() {
  return {{"transformer", nullptr},
          {"dconv", nullptr},
          {"dconv", {{"heads", 4}}},
          {"glu", nullptr},
          {"glu", {{"activation", "gelu"}, {"tied_embedding", false}}},
          {"glu", {{"activation", "silu"}}},
          {"glu", {{"activation", "relu"}}},
          {"albert", nullptr},
          {"albert", {{"factor", 6}, {"untied_softmax", true}}},
          {"albert", {{"factor", 0}}},
          {"albert", {{"factor", 0}, {"untied_softmax", true}}},
          {"lconv", nullptr},
          {"lconv", {{"heads", 4}}},
          {"mixer", nullptr},
          // long enough for every test: it takes no longer sequences
          {"mixer", {{"decoder", "causal_mixing"}, {"input_length", 70}, {"target_length", 130}}},
          {"mos", nullptr},
          {"mos", {{"softmaxes", 3}}}};
}

// Small, with heads * d_kv unequal to d_model and unequal stacks.
inline arch::Shape SmallShape() { return {2, 3, 16, 24, 2, 5, 50}; }

inline at::Tensor Ids(const std::vector<int64_t>& ids, int64_t rows) {
  return at::tensor(ids, at::kLong).view({rows, -1}).clone();
}

}  // namespace allometry::trainer
