// What makes the Evolved Transformer one (So et al. 2019, arXiv 1901.11117).
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/unit/models/model_cases.h"
#include "worker/trainer/layers/evolved_layers.h"
#include "worker/trainer/layers/feed_forward.h"
#include "worker/trainer/layers/position_bias.h"

namespace allometry::trainer {
namespace {

constexpr int64_t kWidth = 12;
const arch::Shape kEvolvedShape{2, 2, kWidth, 20, 2, 3, 30};

template <typename Layer>
std::shared_ptr<Layer> Initialised(std::shared_ptr<Layer> layer) {
  at::manual_seed(2);
  layer->Initialise(at::globalContext().defaultGenerator(at::kCPU));
  layer->to(at::kDouble);
  return layer;
}

// Offsets (reader minus read) at which a layer without attention reads another position.
std::vector<int64_t> Reach(Sublayer& layer, int64_t length) {
  at::NoGradGuard no_grad;
  at::Tensor x = at::randn({1, length, kWidth}, at::kDouble);
  const at::Tensor before = layer.forward(x, {});
  x[0][length / 2].add_(1);
  const at::Tensor changed = (layer.forward(x, {}) != before).any(-1)[0];
  std::vector<int64_t> offsets;
  for (int64_t t = 0; t < length; ++t)
    if (changed[t].item<bool>()) offsets.push_back(t - length / 2);
  return offsets;
}

std::vector<int64_t> From(int64_t first, int64_t last) {
  std::vector<int64_t> all;
  for (int64_t i = first; i <= last; ++i) all.push_back(i);
  return all;
}

TEST(EvolvedLayers, ConvolutionsReachAsFarAsTheirKernels) {
  const auto encoder = Initialised(std::make_shared<EncoderConvolutionSublayer>(kWidth, 0));
  EXPECT_EQ(Reach(*encoder, 31), From(-5, 5));  // 1 of width 3, then 4 of width 9
  const auto decoder = Initialised(std::make_shared<DecoderConvolutionSublayer>(kWidth, 0));
  EXPECT_EQ(Reach(*decoder, 51), From(0, 16));  // 10 of width 11, then 6 of width 7
}

// The separable convolution has d / 2 channels, and zeros fill it up: the other half of the state passes unchanged.
TEST(EvolvedLayers, EncoderConvolutionLeavesHalfOfTheChannels) {
  const auto layer = Initialised(std::make_shared<EncoderConvolutionSublayer>(kWidth, 0));
  const at::Tensor x = at::randn({2, 7, kWidth}, at::kDouble), change = layer->forward(x, {}) - x;
  EXPECT_GT(change.slice(-1, 0, kWidth / 2).abs().min().item<double>(), 0);
  EXPECT_EQ(change.slice(-1, kWidth / 2).abs().max().item<double>(), 0);
}

TEST(EvolvedLayers, EncoderConvolutionReadsNoPadding) {
  const auto layer = Initialised(std::make_shared<EncoderConvolutionSublayer>(kWidth, 0));
  const at::Tensor x = at::randn({1, 9, kWidth}, at::kDouble);
  StackContext context;
  context.keep_bs1 = (at::arange(9) < 6).to(at::kDouble).view({1, 9, 1});
  const at::Tensor padded = layer->forward(x, context).slice(1, 0, 6), plain = layer->forward(x.slice(1, 0, 6), {});
  EXPECT_LE((padded - plain).abs().max().item<double>(), 1e-12);
}

// The sum of two attentions of one normalised input, each as the backbone's own layer computes it.
TEST(EvolvedLayers, DualAttentionIsTheSumOfTwo) {
  arch::Shape wide = kEvolvedShape;
  wide.heads = 4;
  const auto dual = Initialised(std::make_shared<DualAttentionSublayer>(kEvolvedShape, wide.heads, 0));
  const auto self = Initialised(std::make_shared<AttentionSublayer>(wide, /*is_cross=*/false, /*with_table=*/false, 0));
  const auto cross =
      Initialised(std::make_shared<AttentionSublayer>(kEvolvedShape, /*is_cross=*/true, /*with_table=*/false, 0));
  at::NoGradGuard no_grad;
  auto own = dual->named_parameters();
  for (auto* layer : {static_cast<torch::nn::Module*>(self.get()), static_cast<torch::nn::Module*>(cross.get())})
    for (auto& item : layer->named_parameters()) item.value().copy_(own[item.key()]);
  StackContext context;
  context.memory_bsd = at::randn({2, 4, kWidth}, at::kDouble);
  context.memory_mask_bs = PaddingMask(Ids({3, 4, 5, 6, 3, 4, 0, 0}, 2), at::kDouble);
  context.wide_positions.bias_hqk = PositionBias(at::randn({kRelativeBuckets, 4}, at::kDouble), 5, /*causal=*/true);
  StackContext of_self = context;
  of_self.positions.bias_hqk = context.wide_positions.bias_hqk;
  const at::Tensor x = at::randn({2, 5, kWidth}, at::kDouble);
  const at::Tensor expected = self->forward(x, of_self) + cross->forward(x, context) - x;
  EXPECT_LE((dual->forward(x, context) - expected).abs().max().item<double>(), 1e-12);
}

TEST(EvolvedLayers, DecoderFeedForwardIsSwish) {
  const auto swish = Initialised(std::make_shared<SwishFeedForwardSublayer>(kWidth, 20, 0));
  auto names = swish->named_parameters();
  const at::Tensor x = at::randn({2, 5, kWidth}, at::kDouble);
  const at::Tensor normed = x / (x.square().mean(-1, true) + 1e-6).sqrt();
  const at::Tensor z = at::matmul(normed, names["DenseSwishDense.wi.weight"].t());
  const at::Tensor expected = x + at::matmul(z / (1 + (-z).exp()), names["DenseSwishDense.wo.weight"].t());
  EXPECT_LE((swish->forward(x, {}) - expected).abs().max().item<double>(), 1e-12);
}

torch::OrderedDict<std::string, at::Tensor> Parameters(const common::Json& given) {
  return MakeModel(ModelCase{"evolved", given, 2}.Spec({4, 2, 16, 24, 2, 5, 50}), 0)->named_parameters();
}

TEST(EvolvedModel, OneLayerReplacesTwo) {
  const auto names = Parameters(nullptr);
  EXPECT_TRUE(names.contains("encoder.block.1.layer.3.DenseReluDense.wi.weight"));
  EXPECT_FALSE(names.contains("encoder.block.2.layer.0.layer_norm.weight"));
  EXPECT_TRUE(names.contains("decoder.block.0.layer.4.DenseSwishDense.wi.weight"));
  EXPECT_FALSE(names.contains("decoder.block.1.layer.0.layer_norm.weight"));
}

// One table per stack and number of heads.
TEST(EvolvedModel, HeadsDoubleUpToTheirLimit) {
  const auto wide = [](int64_t max_heads) {
    auto names = Parameters({{"max_heads", max_heads}});
    const int64_t inner = names["decoder.block.0.layer.0.SelfAttention.q.weight"].size(0);
    const at::Tensor* table = names.find("decoder.wide_relative_attention_bias.weight");
    EXPECT_EQ(names["decoder.block.0.layer.2.SelfAttention.q.weight"].size(0), 2 * 5);
    EXPECT_EQ(names["decoder.block.0.layer.0.EncDecAttention.q.weight"].size(0), 2 * 5);
    return std::pair(inner, table == nullptr ? 0 : table->size(1));
  };
  EXPECT_EQ(wide(0), std::pair(int64_t{4 * 5}, int64_t{4}));
  EXPECT_EQ(wide(3), std::pair(int64_t{3 * 5}, int64_t{3}));
  EXPECT_EQ(wide(2), std::pair(int64_t{2 * 5}, int64_t{0}));
  EXPECT_EQ(wide(9), std::pair(int64_t{4 * 5}, int64_t{4}));
}

}  // namespace
}  // namespace allometry::trainer
