// What makes a Performer one.
#include "arch/performer.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/models/model_cases.h"
#include "worker/trainer/layers/linear_attention.h"

namespace allometry::trainer {
namespace {

std::shared_ptr<Model> MakePerformerModel(uint64_t seed, const common::Json& given = nullptr) {
  return MakeModel(ModelCase{"performer", given}.Spec(SmallShape()), seed);
}

std::map<std::string, at::Tensor> Buffers(Model& model) {
  std::map<std::string, at::Tensor> out;
  for (const auto& item : model.named_buffers()) out[item.key()] = item.value().clone();
  return out;
}

at::Tensor Normal(at::IntArrayRef sizes, uint64_t seed) {
  return at::empty(sizes, at::kDouble).normal_(0, 1, at::detail::createCPUGenerator(seed));
}

TEST(RandomFeatures, AreOrthogonalInBlocksWithTheNormsOfNormalVectors) {
  constexpr int64_t kCount = 256;
  for (int64_t depth : {5, 32, 64}) {
    const at::Tensor rows = DrawRandomFeatures(kCount, depth, at::detail::createCPUGenerator(3)).to(at::kDouble);
    ASSERT_EQ(rows.sizes(), (std::vector<int64_t>{kCount, depth}));
    const at::Tensor directions = rows / rows.norm(2, 1, true);
    for (int64_t first = 0; first < kCount; first += depth) {
      const at::Tensor block = directions.slice(0, first, std::min(first + depth, kCount));
      EXPECT_LE((at::mm(block, block.t()) - at::eye(block.size(0), at::kDouble)).abs().max().item<double>(), 1e-6);
    }
    EXPECT_GT(
        at::mm(directions.slice(0, 0, depth), directions.slice(0, depth, 2 * depth).t()).abs().max().item<double>(),
        0.05)
        << "blocks are independent";
    // |w|^2 is chi-squared: mean `depth`, variance 2 depth. Six standard errors of 256 rows.
    const at::Tensor squares = rows.square().sum(1);
    EXPECT_NEAR(squares.mean().item<double>(), depth, 6 * std::sqrt(2.0 * depth / kCount));
    EXPECT_NEAR(squares.var().item<double>() / (2.0 * depth), 1, 6 * std::sqrt((2 + 12.0 / depth) / kCount));
  }
}

// Over many draws the mean product of features is exp(q k), within 1 %. The standard error is at most 0.33 %, for the
// most variable pair, q = k; the draws are fixed. Rows of one length, or directions that a factorisation has a liking
// for, miss this by far.
TEST(RandomFeatures, EstimateTheSoftmaxKernelWithoutBias) {
  constexpr int64_t kDepth = 8, kDraws = 20000;
  const auto generator = at::detail::createCPUGenerator(17);
  at::Tensor k = Normal({1, 6, kDepth}, 1), q = Normal({1, 6, kDepth}, 2);
  k = k / k.norm(2, 2, true);
  q = q / q.norm(2, 2, true);
  q[0][0] = k[0][0];
  q[0][1] = -k[0][1];
  q[0][2] = k[0][2] * 0.5;
  q[0][3].zero_();
  at::Tensor sum = at::zeros({6}, at::kDouble);
  for (int64_t draw = 0; draw < kDraws; ++draw) {
    const at::Tensor rows = DrawRandomFeatures(arch::kPerformerFeatures, kDepth, generator);
    sum += (KeyFeatures(FeatureKernel::kSoftmax, q, rows) * KeyFeatures(FeatureKernel::kSoftmax, k, rows)).sum(2)[0];
  }
  const at::Tensor ratio = sum / kDraws / (q * k).sum(2)[0].exp();
  for (int64_t i = 0; i < 6; ++i) EXPECT_NEAR(ratio[i].item<double>(), 1, 0.01) << i;
}

// A query's features are a key's up to one factor, which cancels, and the stabiliser.
TEST(RandomFeatures, OfAQueryAreThoseOfAKeyUpToAFactor) {
  const at::Tensor rows = DrawRandomFeatures(256, 16, at::detail::createCPUGenerator(4)),
                   x = Normal({2, 5, 16}, 5) * 0.5;
  const at::Tensor q = QueryFeatures(FeatureKernel::kSoftmax, x, rows),
                   k = KeyFeatures(FeatureKernel::kSoftmax, x, rows);
  const at::Tensor factor = k.amax(-1, true) / q.amax(-1, true);
  EXPECT_LE((k - q * factor).abs().max().item<double>(), 1e-5);
  EXPECT_NEAR(q.max().item<double>(), (1 + 1e-6) / 16, 1e-12);
}

TEST(RandomFeatures, ReluIsItsFormula) {
  const at::Tensor rows = DrawRandomFeatures(256, 6, at::detail::createCPUGenerator(4)), x = Normal({2, 5, 6}, 5);
  const at::Tensor expected = (at::matmul(x, rows.to(at::kDouble).t()).clamp_min(0) + 1e-6) / 16;
  EXPECT_TRUE(at::allclose(QueryFeatures(FeatureKernel::kRelu, x, rows), expected, 1e-12, 1e-15));
  EXPECT_TRUE(at::allclose(KeyFeatures(FeatureKernel::kRelu, x, rows), expected, 1e-12, 1e-15));
}

at::Tensor Direct(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal) {
  at::Tensor weights = at::bmm(q, k.transpose(1, 2));
  if (causal) weights = weights.tril();
  return at::bmm(weights / weights.sum(2, true), v);
}

// Chunked sums against the quadratic form, at and around the ends of chunks.
TEST(LinearAttention, IsTheQuadraticFormInOtherOrder) {
  for (int64_t length : {1, 5, 63, 64, 65, 114, 128, 129, 200}) {
    const at::Tensor q = Normal({3, length, 20}, 1).abs(), k = Normal({3, length, 20}, 2).abs(),
                     v = Normal({3, length, 4}, 3);
    EXPECT_TRUE(at::allclose(LinearAttention(q, k, v), Direct(q, k, v, false), 1e-10, 1e-12)) << length;
    EXPECT_TRUE(at::allclose(CausalLinearAttention(q, k, v), Direct(q, k, v, true), 1e-10, 1e-12)) << length;
  }
}

// With many features this is softmax attention whose kernel is exp(q k), unscaled: 65,536 of them leave an error of 6 %
// in the most variable kernel here, while q k divided by sqrt(d_kv) gives values that are off by 0.27.
TEST(LinearAttention, ApproachesSoftmaxAttention) {
  const at::Tensor q = Normal({2, 7, 8}, 1) * 0.3, k = Normal({2, 7, 8}, 2) * 0.4, v = Normal({2, 7, 8}, 3);
  const at::Tensor rows = DrawRandomFeatures(65536, 8, at::detail::createCPUGenerator(9));
  const at::Tensor ours = LinearAttention(QueryFeatures(FeatureKernel::kSoftmax, q, rows),
                                          KeyFeatures(FeatureKernel::kSoftmax, k, rows), v);
  const auto exact = [&](double scale) { return at::bmm(at::softmax(at::bmm(q, k.transpose(1, 2)) * scale, -1), v); };
  EXPECT_LE((ours - exact(1)).abs().max().item<double>(), 0.1);
  EXPECT_GT((ours - exact(std::pow(8, -0.5))).abs().max().item<double>(), 0.15);
}

TEST(LinearAttention, OfNothingButPaddingIsZero) {
  const at::Tensor q = Normal({1, 3, 20}, 1).abs(), k = at::zeros({1, 3, 20}, at::kDouble), v = Normal({1, 3, 4}, 3);
  EXPECT_EQ(LinearAttention(q, k, v).abs().max().item<double>(), 0);
}

// 512 positions, queries and keys up to eight times as large as at the start, forward and backward.
TEST(LinearAttention, StaysFiniteOver512PositionsInBfloat16) {
  const arch::Shape shape{1, 1, 64, 64, 1, 64, 50};
  for (double scale : {1.0, 8.0}) {
    const auto features = std::make_shared<RandomFeatures>(256, 64);
    LinearAttentionSublayer::Options options;
    options.causal = options.owns_features = true;
    LinearAttentionSublayer layer(shape, features, options);
    layer.Initialise(at::detail::createCPUGenerator(3));
    for (const auto& item : layer.named_parameters()) {
      at::NoGradGuard no_grad;
      if (item.key().find(".q.") != std::string::npos || item.key().find(".k.") != std::string::npos)
        item.value().mul_(scale);
      at::Tensor parameter = item.value();
      parameter.set_data(parameter.to(at::kBFloat16));
    }
    const at::Tensor x = Normal({2, 512, 64}, 8).to(at::kBFloat16).requires_grad_(true);
    const at::Tensor y = layer.forward(x, {});
    EXPECT_EQ(y.scalar_type(), at::kBFloat16);
    EXPECT_TRUE(y.isfinite().all().item<bool>());
    EXPECT_LE((y - x).abs().max().item<double>(), 40) << "a mean of values, not a quotient of noise";
    y.to(at::kFloat).square().sum().backward();
    EXPECT_TRUE(x.grad().isfinite().all().item<bool>());
    for (const auto& item : layer.named_parameters())
      EXPECT_TRUE(item.value().grad().isfinite().all().item<bool>()) << item.key();
  }
}

// A later key a thousand times as large, or a padded one, leaves every bit before it or beside it as it was.
TEST(LinearAttention, TheStabiliserSeesNoLaterAndNoPaddedPosition) {
  const auto features = std::make_shared<RandomFeatures>(256, 5);
  for (bool causal : {true, false}) {
    LinearAttentionSublayer::Options options;
    options.causal = causal;
    options.owns_features = true;
    LinearAttentionSublayer layer(SmallShape(), features, options);
    layer.Initialise(at::detail::createCPUGenerator(3));
    at::NoGradGuard no_grad;
    const at::Tensor x = Normal({1, 130, 16}, 8).to(at::kFloat);
    at::Tensor other = x.clone();
    other[0].slice(0, 100) = Normal({30, 16}, 9);
    other[0].slice(0, 100).select(1, 0).fill_(1000);
    StackContext context;
    context.keep_bs1 = (at::arange(130) < 100).to(at::kFloat).view({1, 130, 1});
    const at::Tensor a = layer.forward(x, context), b = layer.forward(other, context);
    EXPECT_TRUE(at::equal(a.slice(1, 0, 100), b.slice(1, 0, 100))) << causal;
    EXPECT_FALSE(at::equal(a.slice(1, 100), b.slice(1, 100))) << causal;
  }
}

TEST(PerformerModel, KeepsOneDrawForEachStackAsABuffer) {
  const auto model = MakePerformerModel(3), same = MakePerformerModel(3), other = MakePerformerModel(4);
  const auto buffers = Buffers(*model);
  ASSERT_EQ(buffers.size(), 2u);
  const std::string encoder = "encoder.block.0.layer.0.random_features.rows";
  const std::string decoder = "decoder.block.0.layer.0.random_features.rows";
  ASSERT_TRUE(buffers.contains(encoder) && buffers.contains(decoder));
  EXPECT_EQ(buffers.at(encoder).sizes(), (std::vector<int64_t>{256, 5}));
  EXPECT_FALSE(at::equal(buffers.at(encoder), buffers.at(decoder)));
  EXPECT_FALSE(model->named_parameters().contains(encoder));
  EXPECT_TRUE(at::equal(buffers.at(encoder), Buffers(*same).at(encoder)));
  EXPECT_FALSE(at::equal(buffers.at(encoder), Buffers(*other).at(encoder)));
  for (const auto& item : model->named_parameters())
    EXPECT_EQ(item.key().find("relative_attention_bias"), std::string::npos) << item.key();
}

// All layers and heads of a stack use the draw that its first layer saves.
TEST(PerformerModel, EveryLayerUsesTheStacksDraw) {
  const auto model = MakePerformerModel(3), changed = MakePerformerModel(3);
  at::NoGradGuard no_grad;
  // Without the first layer's attention, only the second can tell the draws apart.
  for (Model* m : {model.get(), changed.get()})
    m->named_parameters()["encoder.block.0.layer.0.SelfAttention.o.weight"].zero_();
  changed->named_buffers()["encoder.block.0.layer.0.random_features.rows"].mul_(-1);
  const at::Tensor inputs = Ids({5, 6, 7, 8, 9}, 1);
  EXPECT_FALSE(at::allclose(model->Encode(inputs), changed->Encode(inputs)));
}

// Without relative positions, order comes from the sinusoids alone.
TEST(PerformerModel, KnowsOrder) {
  const auto model = MakePerformerModel(3);
  at::NoGradGuard no_grad;
  const at::Tensor a = model->Encode(Ids({5, 6, 7, 8}, 1)), b = model->Encode(Ids({6, 5, 7, 8}, 1));
  EXPECT_GT((a.select(1, 2) - b.select(1, 2)).abs().max().item<double>(), 1e-3);
}

TEST(PerformerModel, RedrawsAsAFunctionOfSeedAndStep) {
  const auto model = MakePerformerModel(3, {{"redraw_steps", 4}}), late = MakePerformerModel(3, {{"redraw_steps", 4}});
  const auto first = Buffers(*model);
  std::map<int64_t, std::map<std::string, at::Tensor>> after;
  for (int64_t step = 1; step <= 9; ++step) {
    model->BeginStep(step);
    after[step] = Buffers(*model);
  }
  for (const auto& [name, rows] : first) {
    EXPECT_TRUE(at::equal(after[4][name], rows)) << "the first draw serves the first four steps";
    EXPECT_FALSE(at::equal(after[5][name], rows));
    EXPECT_TRUE(at::equal(after[8][name], after[5][name]));
    EXPECT_FALSE(at::equal(after[9][name], after[5][name]));
    late->BeginStep(9);  // without the steps before it
    EXPECT_TRUE(at::equal(Buffers(*late)[name], after[9][name]));
  }
  const auto never = MakePerformerModel(3);
  for (int64_t step = 1; step <= 9; ++step) never->BeginStep(step);
  for (const auto& [name, rows] : Buffers(*never)) EXPECT_TRUE(at::equal(rows, first.at(name)));
}

}  // namespace
}  // namespace allometry::trainer
