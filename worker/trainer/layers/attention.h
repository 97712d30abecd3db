#pragma once

#include "worker/trainer/layers/sublayer.h"

namespace allometry::trainer {

// Multi-head attention without 1/sqrt(d) scaling, as T5 folds it into the initialisation. `with_table` says that it
// owns the stack's relative-position table (the first layer's does).
class Attention : public torch::nn::Module {
 public:
  Attention(const arch::Shape& shape, bool with_table);
  void Initialise(at::Generator generator);

  int64_t heads() const { return heads_; }
  int64_t depth() const { return d_kv_; }
  const at::Tensor& q() const { return **q_; }
  const at::Tensor& k() const { return **k_; }
  const at::Tensor& v() const { return **v_; }
  const at::Tensor& o() const { return **o_; }
  const at::Tensor& table() const { return **table_; }
  bool has_table() const { return table_ != nullptr; }

 private:
  int64_t d_model_, heads_, d_kv_;
  std::shared_ptr<Weight> q_, k_, v_, o_, table_;
};

// x + attention(norm x), over itself or over the encoder's output. One autograd node with a backward pass of its own:
// it keeps the probabilities, sums the bias's gradient over the batch and adds the residual's gradient inside the
// norm's. Where a GPU's kernels take it (device_attention.h) there are neither probabilities nor a bias.
class AttentionSublayer : public Sublayer {
 public:
  AttentionSublayer(const arch::Shape& shape, bool is_cross, bool with_table, double dropout);
  void Initialise(at::Generator generator) override { attention_->Initialise(generator); }
  at::Tensor forward(const at::Tensor& x_btd, const StackContext& context) override;
  // Self-attention keeps the keys and values of all positions so far, cross-attention those of the memory.
  at::Tensor Step(const at::Tensor& x_b1d, const StackContext& context, LayerCache& cache) override;
  at::Tensor PositionTable() const override { return attention_->has_table() ? attention_->table() : at::Tensor(); }

 protected:
  double dropout_;
  std::shared_ptr<Attention> attention_;
  std::shared_ptr<RmsNorm> norm_;

 private:
  bool is_cross_;
};

}  // namespace allometry::trainer
