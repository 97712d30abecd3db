#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <memory>
#include <string>

#include "arch/architecture.h"
#include "worker/trainer/layers/side_terms.h"

namespace allometry::trainer {

// Shape legend: b batch, s input (encoder) positions, t target (decoder) positions, d d_model, h heads, v vocabulary.

// What is needed to build a model: an architecture, its size, and its complete, checked options.
struct ModelSpec {
  std::string architecture;
  arch::Shape shape;
  common::Json options;  // complete: see arch::CompleteOptions
  double dropout = 0.0;
  // What the recipe configures, whatever a batch is padded to; T5's pretraining unless it says otherwise.
  arch::Lengths lengths{512, 114};
  double z_loss = 0.0;  // of the training loss: see layers/cross_entropy.h
};

// Token ids; 0 is padding and takes no part in attention or loss.
struct Batch {
  at::Tensor inputs_bs;   // int64
  at::Tensor targets_bt;  // int64: labels; the decoder's inputs are these shifted right behind a 0
};

// The loss of a batch as sums, so that micro-batches add up to the global batch exactly.
struct Loss {
  at::Tensor nll_sum;  // float32 scalar: negative log-likelihood over unpadded targets, nats, with gradient
  SideTerms side;      // terms beside the likelihood (load balancing): trained on, no part of any reported loss
  // With a z-loss what is trained on in place of nll_sum, which then has no gradient; otherwise undefined.
  at::Tensor objective_sum;
};

// What a model remembers of the targets it has decoded so far: nobody's business but the model's that made it.
class DecodeState {
 public:
  virtual ~DecodeState() = default;
};

// An encoder-decoder with the project's one interface. Not thread-safe.
class Model : public torch::nn::Module {
 public:
  // Encoder output [b, s', d]; s' may be shorter than s (funnel).
  virtual at::Tensor Encode(const at::Tensor& inputs_bs) = 0;
  // Logits [b, t, v] of decoder inputs (already shifted) given the encoder's output. `inputs_bs` tells the padding.
  // An architecture without logits (a mixture of softmaxes) returns log-probabilities: their softmax is the same.
  virtual at::Tensor Decode(const at::Tensor& encoded_bsd, const at::Tensor& inputs_bs,
                            const at::Tensor& decoder_inputs_bt) = 0;
  // Decoding one position at a time, in evaluation mode and without gradient: DecodeNext takes the decoder's next input
  // of every row [b] (first the start mark 0) and returns what Decode would at that position of the whole prefix, [b,
  // v]. A step costs what one position costs: what earlier positions left is in the state, not computed again.
  virtual std::unique_ptr<DecodeState> StartDecoding(const at::Tensor& encoded_bsd, const at::Tensor& inputs_bs) = 0;
  virtual at::Tensor DecodeNext(DecodeState& state, const at::Tensor& ids_b) = 0;
  // Called before each training step, counted from 1, also after a resume: what changes with the step and not by its
  // gradient (random features) is a function of the model's seed and the step.
  virtual void BeginStep(int64_t step) {}
  // Loss of a batch over its unpadded targets.
  virtual Loss ComputeLoss(const Batch& batch) = 0;
  // Negative log-likelihood of each target [b, t], 0 at padding. No gradient.
  virtual at::Tensor TokenNll(const Batch& batch) = 0;
  // Whether a parameter stays in float32 where the model computes in bfloat16.
  virtual bool StaysFloat32(const std::string& parameter) const { return false; }

  // Activation checkpointing: time for memory, with equal results (see layers/recompute.h). Off at first.
  void set_recompute(bool on) { recompute_ = on; }
  bool recompute() const { return recompute_; }

 private:
  bool recompute_ = false;
};

// Shifts labels right behind the start mark (0) to make decoder inputs.
at::Tensor ShiftRight(const at::Tensor& targets_bt);

// Builds and initialises a model; equal seeds give equal weights on every machine (CPU generator, then moved).
std::shared_ptr<Model> MakeModel(const ModelSpec& spec, uint64_t seed);

}  // namespace allometry::trainer
