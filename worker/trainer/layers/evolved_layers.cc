#include "worker/trainer/layers/evolved_layers.h"

#include <ATen/ATen.h>

#include <cmath>

#include "worker/trainer/layers/light_convolution.h"
#include "worker/trainer/layers/plain_attention.h"

namespace allometry::trainer {
namespace {

void FillByInputs(const Weight& weight, at::Generator generator) {
  FillNormal(*weight, std::pow(static_cast<double>((*weight).size(1)), -0.5), generator);
}

// Channels filled up with zeros.
at::Tensor PadChannels(const at::Tensor& x_btc, int64_t channels) {
  return at::constant_pad_nd(x_btc, {0, channels - x_btc.size(-1)}, 0);
}

// Each position beside the one before and the one after it, [b, t, 3 c]: a dense convolution of width 3 is one product.
at::Tensor ThreeTaps(const at::Tensor& x_btc) {
  const int64_t length = x_btc.size(1);
  const at::Tensor padded = at::constant_pad_nd(x_btc, {0, 0, 1, 1}, 0);
  return at::cat({padded.slice(1, 0, length), x_btc, padded.slice(1, 2)}, -1);
}

}  // namespace

GatedLinearUnitSublayer::GatedLinearUnitSublayer(int64_t d_model, double dropout) : dropout_(dropout) {
  unit_ = register_module("GatedLinearUnit", std::make_shared<torch::nn::Module>());
  input_ = AddWeight(unit_.get(), "input", {2 * d_model, d_model});
  norm_ = register_module("layer_norm", std::make_shared<RmsNorm>(d_model));
}

void GatedLinearUnitSublayer::Initialise(at::Generator generator) { FillByInputs(*input_, generator); }

at::Tensor GatedLinearUnitSublayer::forward(const at::Tensor& x_btd, const StackContext&) {
  return x_btd + Drop(SigmoidGlu(at::linear(norm_->forward(x_btd), **input_)), dropout_, is_training());
}

EncoderConvolutionSublayer::EncoderConvolutionSublayer(int64_t d_model, double dropout)
    : d_model_(d_model), dropout_(dropout) {
  convolution_ = register_module("EvolvedConvolution", std::make_shared<torch::nn::Module>());
  left_ = AddWeight(convolution_.get(), "left", {4 * d_model, d_model});
  right_ = AddWeight(convolution_.get(), "right", {d_model / 2, 3 * d_model});
  hidden_norm_ = convolution_->register_module("hidden_norm", std::make_shared<RmsNorm>(4 * d_model));
  output_ = convolution_->register_module(
      "output", std::make_shared<SeparableConvolution>(4 * d_model, d_model / 2, /*width=*/9, /*first=*/-4));
  norm_ = register_module("layer_norm", std::make_shared<RmsNorm>(d_model));
}

void EncoderConvolutionSublayer::Initialise(at::Generator generator) {
  FillByInputs(*left_, generator);
  FillByInputs(*right_, generator);
  output_->Initialise(generator);
}

at::Tensor EncoderConvolutionSublayer::forward(const at::Tensor& x_btd, const StackContext& context) {
  const auto kept = [&](const at::Tensor& t) { return context.keep_bs1.defined() ? t * context.keep_bs1 : t; };
  const auto drop = [&](const at::Tensor& t) { return Drop(t, dropout_, is_training()); };
  const at::Tensor h = norm_->forward(x_btd);
  const at::Tensor left = drop(at::relu(at::linear(h, **left_)));
  const at::Tensor right = drop(at::relu(at::linear(ThreeTaps(kept(h)), **right_)));
  const at::Tensor hidden = hidden_norm_->forward(left + PadChannels(right, 4 * d_model_));
  return x_btd + PadChannels(drop(output_->forward(kept(hidden))), d_model_);
}

at::Tensor EncoderConvolutionSublayer::Step(const at::Tensor&, const StackContext&, LayerCache&) {
  TORCH_CHECK(false, "only a causal convolution goes step by step");
}

DualAttentionSublayer::DualAttentionSublayer(const arch::Shape& shape, int64_t wide_heads, double dropout)
    : dropout_(dropout) {
  arch::Shape wide = shape;
  wide.heads = wide_heads;
  self_ = register_module("SelfAttention", std::make_shared<Attention>(wide, /*with_table=*/false));
  cross_ = register_module("EncDecAttention", std::make_shared<Attention>(shape, /*with_table=*/false));
  norm_ = register_module("layer_norm", std::make_shared<RmsNorm>(shape.d_model));
}

void DualAttentionSublayer::Initialise(at::Generator generator) {
  self_->Initialise(generator);
  cross_->Initialise(generator);
}

at::Tensor DualAttentionSublayer::forward(const at::Tensor& x_btd, const StackContext& context) {
  const double p = is_training() ? dropout_ : 0;
  StackContext wide = context;
  wide.positions = context.wide_positions;
  const at::Tensor h = norm_->forward(x_btd);
  return x_btd + Drop(SelfAttend(*self_, h, wide, p) + CrossAttend(*cross_, h, context, p), dropout_, is_training());
}

at::Tensor DualAttentionSublayer::Step(const at::Tensor& x_b1d, const StackContext& context, LayerCache& cache) {
  StackContext wide = context;
  wide.positions = context.wide_positions;
  cache.parts.resize(2);
  const at::Tensor h = norm_->forward(x_b1d);
  return x_b1d +
         (SelfAttendStep(*self_, h, wide, cache.parts[0]) + CrossAttendStep(*cross_, h, context, cache.parts[1]));
}

DecoderConvolutionSublayer::DecoderConvolutionSublayer(int64_t d_model, double dropout)
    : d_model_(d_model), dropout_(dropout) {
  convolution_ = register_module("EvolvedConvolution", std::make_shared<torch::nn::Module>());
  const auto add = [&](const char* name, int64_t from, int64_t to, int64_t width) {
    return convolution_->register_module(name, std::make_shared<SeparableConvolution>(from, to, width, 1 - width));
  };
  left_ = add("left", d_model, 2 * d_model, 11);
  right_ = add("right", d_model, d_model / 2, 7);
  hidden_norm_ = convolution_->register_module("hidden_norm", std::make_shared<RmsNorm>(2 * d_model));
  output_ = add("output", 2 * d_model, d_model, 7);
  norm_ = register_module("layer_norm", std::make_shared<RmsNorm>(d_model));
}

void DecoderConvolutionSublayer::Initialise(at::Generator generator) {
  for (const auto& convolution : {left_, right_, output_}) convolution->Initialise(generator);
}

at::Tensor DecoderConvolutionSublayer::Join(const at::Tensor& left_btc, const at::Tensor& right_btc) {
  const at::Tensor left = Drop(at::relu(left_btc), dropout_, is_training());
  const at::Tensor right = Drop(right_btc, dropout_, is_training());
  return hidden_norm_->forward(left + PadChannels(right, 2 * d_model_));
}

at::Tensor DecoderConvolutionSublayer::forward(const at::Tensor& x_btd, const StackContext&) {
  const at::Tensor h = norm_->forward(x_btd);
  const at::Tensor hidden = Join(left_->forward(h), right_->forward(h));
  return x_btd + Drop(output_->forward(hidden), dropout_, is_training());
}

at::Tensor DecoderConvolutionSublayer::Step(const at::Tensor& x_b1d, const StackContext&, LayerCache& cache) {
  std::vector<at::Tensor>& windows = cache.tensors;
  windows.resize(3);
  const at::Tensor h = norm_->forward(x_b1d);
  const at::Tensor hidden = Join(left_->Step(h, windows[0]), right_->Step(h, windows[1]));
  return x_b1d + output_->Step(hidden, windows[2]);
}

SwishFeedForwardSublayer::SwishFeedForwardSublayer(int64_t d_model, int64_t d_ff, double dropout) : dropout_(dropout) {
  dense_ = register_module("DenseSwishDense", std::make_shared<torch::nn::Module>());
  wi_ = AddWeight(dense_.get(), "wi", {d_ff, d_model});
  wo_ = AddWeight(dense_.get(), "wo", {d_model, d_ff});
  norm_ = register_module("layer_norm", std::make_shared<RmsNorm>(d_model));
}

void SwishFeedForwardSublayer::Initialise(at::Generator generator) {
  FillByInputs(*wi_, generator);
  FillByInputs(*wo_, generator);
}

at::Tensor SwishFeedForwardSublayer::forward(const at::Tensor& x_btd, const StackContext&) {
  const at::Tensor hidden = Drop(at::silu(at::linear(norm_->forward(x_btd), **wi_)), dropout_, is_training());
  return x_btd + Drop(at::linear(hidden, **wo_), dropout_, is_training());
}

}  // namespace allometry::trainer
