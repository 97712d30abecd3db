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
  // What an architecture cannot promise is said here, case by case.
  int64_t layer_multiple = 1;  // of the layers it takes: a test's shape is rounded up to it
  bool drops = true;           // it has dropout

  ModelSpec Spec(const arch::Shape& shape, double dropout = 0) const {
    const arch::Architecture& costs = **arch::FindArchitecture(architecture);
    return {architecture, Rounded(shape), *arch::CompleteOptions(costs, given), dropout};
  }
  arch::Shape Rounded(arch::Shape shape) const {
    for (int64_t* layers : {&shape.encoder_layers, &shape.decoder_layers})
      *layers = (*layers + layer_multiple - 1) / layer_multiple * layer_multiple;
    return shape;
  }
  std::string Name() const { return architecture + (given.is_null() ? "" : given.dump()); }
};

// Every architecture with its defaults, and with every option changed.
inline std::vector<ModelCase> ModelCases() {
  return {{"transformer", nullptr},
          {"evolved", nullptr, /*layer_multiple=*/2},  // one of its layers replaces two
          {"evolved", {{"max_heads", 3}}, /*layer_multiple=*/2},
          {"evolved", {{"max_heads", 2}}, /*layer_multiple=*/2},
          {"funnel", nullptr, /*layer_multiple=*/5},  // blocks of 2, 2 and 1 layers
          {"funnel", {{"pool", "after_attention"}}, /*layer_multiple=*/5},
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
          {"mos", {{"softmaxes", 3}}},
          {"performer", nullptr},
          {"performer", {{"kernel", "relu"}}},
          {"switch", nullptr, /*layer_multiple=*/4},  // every fourth layer has experts
          {"switch", {{"placement", "huggingface"}}, /*layer_multiple=*/2},
          {"switch", {{"placement", "switch_base"}}, /*layer_multiple=*/2},
          {"universal", nullptr, 1, /*drops=*/false},  // the study's configuration of it drops nothing
          {"universal", {{"gate", "none"}}, 1, /*drops=*/false},
          {"universal", {{"halting", "act"}}, 1, /*drops=*/false},
          {"universal", {{"gate", "none"}, {"halting", "act"}}, 1, /*drops=*/false}};
}

// Small, with heads * d_kv unequal to d_model and unequal stacks.
inline arch::Shape SmallShape() { return {2, 3, 16, 24, 2, 5, 50}; }

inline at::Tensor Ids(const std::vector<int64_t>& ids, int64_t rows) {
  return at::tensor(ids, at::kLong).view({rows, -1}).clone();
}

}  // namespace allometry::trainer
