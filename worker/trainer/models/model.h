#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <memory>
#include <string>

#include "arch/architecture.h"

namespace allometry::trainer {

// Shape legend: b batch, s input (encoder) positions, t target (decoder) positions, d d_model, h heads, v vocabulary.

// What is needed to build a model: an architecture, its size, and its complete, checked options.
struct ModelSpec {
  std::string architecture;
  arch::Shape shape;
  common::Json options;  // complete: see arch::CompleteOptions
  double dropout = 0.0;
};

// Token ids; 0 is padding and takes no part in attention or loss.
struct Batch {
  at::Tensor inputs_bs;   // int64
  at::Tensor targets_bt;  // int64: labels; the decoder's inputs are these shifted right behind a 0
};

// The loss of a batch as sums, so that micro-batches add up to the global batch exactly.
struct Loss {
  at::Tensor nll_sum;    // float32 scalar: negative log-likelihood over unpadded targets, nats, with gradient
  at::Tensor auxiliary;  // float32 scalar: terms beside the likelihood (load balancing); undefined if none
};

// An encoder-decoder with the project's one interface. Not thread-safe.
class Model : public torch::nn::Module {
 public:
  // Encoder output [b, s', d]; s' may be shorter than s (funnel).
  virtual at::Tensor Encode(const at::Tensor& inputs_bs) = 0;
  // Logits [b, t, v] of decoder inputs (already shifted) given the encoder's output. `inputs_bs` tells the padding.
  virtual at::Tensor Decode(const at::Tensor& encoded_bsd, const at::Tensor& inputs_bs,
                            const at::Tensor& decoder_inputs_bt) = 0;
  // Loss of a batch over its unpadded targets.
  virtual Loss ComputeLoss(const Batch& batch) = 0;
  // Negative log-likelihood of each target [b, t], 0 at padding. No gradient.
  virtual at::Tensor TokenNll(const Batch& batch) = 0;
};

// Shifts labels right behind the start mark (0) to make decoder inputs.
at::Tensor ShiftRight(const at::Tensor& targets_bt);

// Builds and initialises a model; equal seeds give equal weights on every machine (CPU generator, then moved).
std::shared_ptr<Model> MakeModel(const ModelSpec& spec, uint64_t seed);

}  // namespace allometry::trainer
