#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>

#include <memory>

#include "arch/architecture.h"

// The layers of the shared backbone, T5 v1.0 (Raffel et al. 2020). Modules and parameters carry the names of Hugging Face's
// T5ForConditionalGeneration, so that weights move between the two unchanged. Shape legend in models/model.h. None is thread-safe.
namespace allometry::trainer {

// y = x / rms(x) * weight over the last dimension, in float32 whatever x is (Zhang and Sennrich 2019, arXiv 1910.07467).
class RmsNorm : public torch::nn::Module {
 public:
  explicit RmsNorm(int64_t d_model);
  at::Tensor forward(const at::Tensor& x);

 private:
  at::Tensor weight_;
};

// Bucket of T5's relative positions (32 buckets, maximum distance 128), int64 [queries, keys].
at::Tensor RelativeBuckets(int64_t queries, int64_t keys, bool bidirectional);

// What is added to attention scores, float [1 or b, 1 or h, queries, keys]: the mask (-inf where forbidden).
at::Tensor PaddingMask(const at::Tensor& ids_bs, at::ScalarType dtype);
at::Tensor CausalMask(int64_t length, const at::TensorOptions& options);

// Multi-head attention without 1/sqrt(d) scaling, as T5 folds it into the initialisation.
class Attention : public torch::nn::Module {
 public:
  // `with_table`: owns the stack's relative-position table (its first layer does).
  Attention(const arch::Shape& shape, bool with_table);
  void Initialise(at::Generator generator);
  // x [b, q, d] attends to memory [b, k, d]; bias is broadcastable to [b, h, q, k].
  at::Tensor forward(const at::Tensor& x, const at::Tensor& memory, const at::Tensor& bias);
  // [1, h, q, k]; only where the table is.
  at::Tensor PositionBias(int64_t queries, int64_t keys, bool bidirectional);

 private:
  int64_t d_model_, heads_, d_kv_;
  torch::nn::Linear q_{nullptr}, k_{nullptr}, v_{nullptr}, o_{nullptr};
  torch::nn::Embedding table_{nullptr};
};

// A pre-norm residual part of a block: "layer.N" with a norm and one of the two functions below.
class AttentionLayer : public torch::nn::Module {
 public:
  AttentionLayer(const arch::Shape& shape, bool is_cross, bool with_table, double dropout);
  at::Tensor forward(const at::Tensor& x, const at::Tensor& bias);                               // self-attention
  at::Tensor forward(const at::Tensor& x, const at::Tensor& memory, const at::Tensor& bias);     // cross-attention
  Attention& attention() { return *attention_; }

 private:
  double dropout_;
  std::shared_ptr<RmsNorm> norm_;
  std::shared_ptr<Attention> attention_;
};

class FeedForwardLayer : public torch::nn::Module {
 public:
  FeedForwardLayer(int64_t d_model, int64_t d_ff, double dropout);
  void Initialise(at::Generator generator);
  at::Tensor forward(const at::Tensor& x);

 private:
  // T5's "DenseReluDense": wi, ReLU, wo.
  struct Dense : torch::nn::Module {
    Dense(int64_t d_model, int64_t d_ff);
    torch::nn::Linear wi{nullptr}, wo{nullptr};
  };
  double dropout_;
  std::shared_ptr<RmsNorm> norm_;
  std::shared_ptr<Dense> dense_;
};

// Fills a parameter from a normal distribution; the generator makes it equal on every machine.
void FillNormal(const at::Tensor& parameter, double sd, at::Generator generator);

}  // namespace allometry::trainer
