#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "arch/architecture.h"
#include "worker/trainer/layers/position_bias.h"
#include "worker/trainer/layers/row_random.h"

namespace allometry::trainer {

// Shape legend in models/model.h; r = b * t rows.

// Fills a parameter from a normal distribution; the generator makes it equal on every machine.
void FillNormal(const at::Tensor& parameter, double sd, at::Generator generator);

// A parameter named "weight" of its own module, as Linear and Embedding have it in Hugging Face's naming.
class Weight : public torch::nn::Module {
 public:
  explicit Weight(at::IntArrayRef sizes);
  const at::Tensor& operator*() const { return weight_; }

 private:
  at::Tensor weight_;
};
// Registers a child module named `name` that holds only a weight.
std::shared_ptr<Weight> AddWeight(torch::nn::Module* parent, const std::string& name, at::IntArrayRef sizes);

// LibTorch's autograd functions take an absent tensor only as an absent optional.
using MaybeTensor = std::optional<at::Tensor>;
inline MaybeTensor Maybe(const at::Tensor& t) { return t.defined() ? MaybeTensor(t) : MaybeTensor(); }
inline at::Tensor TensorOf(const MaybeTensor& t) { return t ? *t : at::Tensor(); }

// [.., d] as [r, d].
inline at::Tensor Rows(const at::Tensor& x) { return x.contiguous().view({-1, x.size(-1)}); }
// a, or a * mask where there is a mask.
inline at::Tensor Times(const at::Tensor& a, const at::Tensor& mask) { return mask.defined() ? a * mask : a; }

// y = x / rms(x) * weight over the last dimension, computed in float32 (Zhang and Sennrich 2019, arXiv 1910.07467).
class RmsNorm : public torch::nn::Module {
 public:
  explicit RmsNorm(int64_t d_model);
  at::Tensor forward(const at::Tensor& x);
  const at::Tensor& weight() const { return weight_; }

 private:
  at::Tensor weight_;
};

struct SideTerms;  // layers/side_terms.h

// What the layers of one stack share in one pass.
struct StackContext {
  Positions positions;        // none if the stack has none
  Positions wide_positions;   // the same for layers with another number of heads (evolved)
  at::Tensor mask_bs;         // 0, or as low as possible at padding, sum type; undefined in the decoder
  at::Tensor memory_bsd;      // the encoder's output; decoder only
  at::Tensor memory_mask_bs;  // as mask_bs, for the memory; decoder only
  at::Tensor keep_bs1;        // 1, or 0 at padding, in the model's type; undefined in the decoder
  at::Tensor token_bt;        // bool: which positions hold a token, in both stacks
  SideTerms* side = nullptr;  // where layers put what they add to the loss and to the metrics; null if nobody asks
  bool recompute = false;     // blocks keep nothing between their ends: see layers/recompute.h

  // The members that can require a gradient: what a recomputed block must take as inputs.
  std::vector<at::Tensor*> Differentiable() {
    return {&positions.bias_hqk, &wide_positions.bias_hqk, &positions.table, &wide_positions.table, &memory_bsd};
  }
};

// What one application of a sublayer remembers between decoding steps; a block that is applied L times has L of them.
struct LayerCache {
  int64_t position = 0;             // of the next step, from 0; the stack counts it, not the sublayer
  std::vector<at::Tensor> tensors;  // the sublayer's own; empty at the first step
  std::vector<LayerCache> parts;    // for a sublayer made of sublayers, which then counts their positions
};

// A pre-norm residual part of a block: "layer.N" with a norm and one function, x + f(norm x).
class Sublayer : public torch::nn::Module {
 public:
  virtual void Initialise(at::Generator generator) = 0;
  virtual at::Tensor forward(const at::Tensor& x_btd, const StackContext& context) = 0;
  // forward's value at one further position of a decoder, given the positions before it in the cache. In evaluation
  // mode, without gradient; the positions are the row of PositionBiasRow. What depends on the memory alone is computed
  // at the first step and kept.
  virtual at::Tensor Step(const at::Tensor& x_b1d, const StackContext& context, LayerCache& cache) = 0;
  // The stack's table of relative positions [32, h]; undefined unless this sublayer owns it.
  virtual at::Tensor PositionTable() const { return {}; }
};

}  // namespace allometry::trainer
