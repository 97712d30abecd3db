#pragma once

#include <torch/nn/module.h>

#include <memory>
#include <utility>

#include "worker/trainer/layers/sublayer.h"

namespace allometry::trainer {

// The embedding tables of a model: how ids become vectors, and which table turns the decoder's output into logits.
// Registers its parameters in the model itself: "shared.weight" [v, e], and where they exist "shared_projection.weight"
// [e, d] and "lm_head.weight" [v, d].
class TokenTables {
 public:
  struct Options {
    int64_t vocabulary = 0, d_model = 0;
    int64_t factor = 0;   // width e of a factorised embedding (Lan et al. 2019); 0 = d_model, no projection
    bool untied = false;  // the output has a table of its own, and its logits are not scaled
    bool constant_coordinate = false;  // the first coordinate of every embedding begins as 1
  };
  // Logits are hidden [n, e] times table [v, e] transposed.
  struct Head {
    at::Tensor hidden_ne, table_ve;
  };

  TokenTables(torch::nn::Module* model, const Options& options);
  // Embedding 1.0, projection factor^-0.5, output table d_model^-0.5.
  void Initialise(at::Generator generator);
  at::Tensor Embed(const at::Tensor& ids_bt) const;  // [b, t, d]
  Head OutputHead(const at::Tensor& decoded_nd) const;

 private:
  Options options_;
  std::shared_ptr<Weight> shared_, projection_, output_;
};

}  // namespace allometry::trainer
