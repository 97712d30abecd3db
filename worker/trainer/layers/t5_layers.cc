#include "worker/trainer/layers/t5_layers.h"

#include <torch/autograd.h>

#include <cmath>
#include <limits>
#include <vector>

namespace allometry::trainer {
namespace {

constexpr double kNormEpsilon = 1e-6;
constexpr int64_t kBuckets = 32, kMaxDistance = 128;

torch::nn::Linear WithoutBias(int64_t in, int64_t out) {
  return torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(false));
}

// Half of a direction's buckets hold exact distances, the other half grow logarithmically up to kMaxDistance.
int64_t DistanceBucket(int64_t distance, int64_t buckets) {
  const int64_t exact = buckets / 2;
  if (distance < exact) return distance;
  const float share = std::log(static_cast<float>(distance) / static_cast<float>(exact)) /
                      static_cast<float>(std::log(static_cast<double>(kMaxDistance) / static_cast<double>(exact)));
  return std::min(buckets - 1, exact + static_cast<int64_t>(share * static_cast<float>(buckets - exact)));
}

int64_t Bucket(int64_t relative, bool bidirectional) {  // relative = key position - query position
  if (!bidirectional) return DistanceBucket(std::max<int64_t>(-relative, 0), kBuckets);
  const int64_t half = kBuckets / 2;
  return (relative > 0 ? half : 0) + DistanceBucket(std::abs(relative), half);
}

}  // namespace

void FillNormal(const at::Tensor& parameter, double sd, at::Generator generator) {
  torch::NoGradGuard no_grad;
  parameter.normal_(0.0, sd, generator);
}

RmsNorm::RmsNorm(int64_t d_model) { weight_ = register_parameter("weight", at::ones({d_model})); }

at::Tensor RmsNorm::forward(const at::Tensor& x) {
  const at::Tensor x32 = x.to(at::kFloat);
  const at::Tensor scale = x32.square().mean(-1, /*keepdim=*/true).add(kNormEpsilon).rsqrt();
  return (x32 * scale * weight_.to(at::kFloat)).to(x.scalar_type());
}

at::Tensor RelativeBuckets(int64_t queries, int64_t keys, bool bidirectional) {
  at::Tensor buckets = at::empty({queries, keys}, at::kLong);
  auto* out = buckets.mutable_data_ptr<int64_t>();
  for (int64_t q = 0; q < queries; ++q)
    for (int64_t k = 0; k < keys; ++k) *out++ = Bucket(k - q, bidirectional);
  return buckets;
}

at::Tensor PaddingMask(const at::Tensor& ids_bs, at::ScalarType dtype) {
  const double forbidden = -3e38;  // as low as possible, and still inside bfloat16's range
  return at::zeros(ids_bs.sizes(), ids_bs.options().dtype(dtype))
      .masked_fill(ids_bs == 0, forbidden)
      .unsqueeze(1)
      .unsqueeze(1);
}

at::Tensor CausalMask(int64_t length, const at::TensorOptions& options) {
  return at::full({length, length}, -std::numeric_limits<float>::infinity(), options).triu(1).unsqueeze(0).unsqueeze(0);
}

Attention::Attention(const arch::Shape& shape, bool with_table)
    : d_model_(shape.d_model), heads_(shape.heads), d_kv_(shape.d_kv) {
  const int64_t inner = heads_ * d_kv_;
  q_ = register_module("q", WithoutBias(d_model_, inner));
  k_ = register_module("k", WithoutBias(d_model_, inner));
  v_ = register_module("v", WithoutBias(d_model_, inner));
  o_ = register_module("o", WithoutBias(inner, d_model_));
  if (with_table) table_ = register_module("relative_attention_bias", torch::nn::Embedding(kBuckets, heads_));
}

void Attention::Initialise(at::Generator generator) {
  const double d = static_cast<double>(d_model_), inner = static_cast<double>(heads_ * d_kv_);
  FillNormal(q_->weight, std::pow(d * static_cast<double>(d_kv_), -0.5), generator);
  FillNormal(k_->weight, std::pow(d, -0.5), generator);
  FillNormal(v_->weight, std::pow(d, -0.5), generator);
  FillNormal(o_->weight, std::pow(inner, -0.5), generator);
  if (table_) FillNormal(table_->weight, std::pow(d, -0.5), generator);
}

at::Tensor Attention::forward(const at::Tensor& x, const at::Tensor& memory, const at::Tensor& bias) {
  const auto split = [&](const at::Tensor& t) { return t.view({t.size(0), t.size(1), heads_, d_kv_}).transpose(1, 2); };
  const at::Tensor q = split(q_(x)), k = split(k_(memory)), v = split(v_(memory));
  const at::Tensor scores = at::matmul(q, k.transpose(-1, -2)) + bias;
  const at::Tensor probabilities = at::softmax(scores.to(at::kFloat), -1).to(x.scalar_type());
  const at::Tensor mixed = at::matmul(probabilities, v).transpose(1, 2).reshape({x.size(0), x.size(1), heads_ * d_kv_});
  return o_(mixed);
}

at::Tensor Attention::PositionBias(int64_t queries, int64_t keys, bool bidirectional) {
  const at::Tensor buckets = RelativeBuckets(queries, keys, bidirectional).to(table_->weight.device());
  return table_(buckets).permute({2, 0, 1}).unsqueeze(0);
}

AttentionLayer::AttentionLayer(const arch::Shape& shape, bool is_cross, bool with_table, double dropout)
    : dropout_(dropout) {
  attention_ = register_module(is_cross ? "EncDecAttention" : "SelfAttention",
                               std::make_shared<Attention>(shape, with_table));
  norm_ = register_module("layer_norm", std::make_shared<RmsNorm>(shape.d_model));
}

at::Tensor AttentionLayer::forward(const at::Tensor& x, const at::Tensor& bias) {
  const at::Tensor normed = norm_->forward(x);
  return x + at::dropout(attention_->forward(normed, normed, bias), dropout_, is_training());
}

at::Tensor AttentionLayer::forward(const at::Tensor& x, const at::Tensor& memory, const at::Tensor& bias) {
  return x + at::dropout(attention_->forward(norm_->forward(x), memory, bias), dropout_, is_training());
}

FeedForwardLayer::Dense::Dense(int64_t d_model, int64_t d_ff) {
  wi = register_module("wi", WithoutBias(d_model, d_ff));
  wo = register_module("wo", WithoutBias(d_ff, d_model));
}

FeedForwardLayer::FeedForwardLayer(int64_t d_model, int64_t d_ff, double dropout) : dropout_(dropout) {
  dense_ = register_module("DenseReluDense", std::make_shared<Dense>(d_model, d_ff));
  norm_ = register_module("layer_norm", std::make_shared<RmsNorm>(d_model));
}

void FeedForwardLayer::Initialise(at::Generator generator) {
  FillNormal(dense_->wi->weight, std::pow(static_cast<double>(dense_->wi->options.in_features()), -0.5), generator);
  FillNormal(dense_->wo->weight, std::pow(static_cast<double>(dense_->wo->options.in_features()), -0.5), generator);
}

at::Tensor FeedForwardLayer::forward(const at::Tensor& x) {
  const at::Tensor hidden = at::dropout(at::relu(dense_->wi(norm_->forward(x))), dropout_, is_training());
  return x + at::dropout(dense_->wo(hidden), dropout_, is_training());
}

}  // namespace allometry::trainer
