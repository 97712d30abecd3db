// What makes a Funnel Transformer one.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/unit/models/model_cases.h"
#include "worker/trainer/layers/pooling_attention.h"

namespace allometry::trainer {
namespace {

const std::vector<common::Json> kPools{nullptr, {{"pool", "after_attention"}}};

std::shared_ptr<Model> MakeFunnelModel(const common::Json& given, int64_t encoder_layers = 4) {
  arch::Shape shape = SmallShape();
  shape.encoder_layers = encoder_layers;
  return MakeModel(ModelCase{"funnel", given}.Spec(shape), 3);
}

at::Tensor Sequence(int64_t length) { return 2 + at::arange(length).remainder(47).unsqueeze(0); }

TEST(PoolPairs, AreMeansOfWhatIsNotPadding) {
  const at::Tensor x = at::tensor({1.0, 3.0, 5.0, 100.0, 100.0, 100.0}).view({1, 6, 1});
  const at::Tensor keep = at::tensor({1.0, 1.0, 1.0, 0.0, 0.0, 0.0}).view({1, 6, 1});
  EXPECT_TRUE(at::equal(PoolPairs(x, keep).flatten(), at::tensor({2.0, 5.0, 0.0})));
}

TEST(FunnelModel, TheEncoderIsAQuarterAsLongRoundedUp) {
  for (const auto& pool : kPools)
    for (int64_t length : {1, 3, 4, 5, 8, 9, 30}) {
      const auto encoded = MakeFunnelModel(pool)->Encode(Sequence(length));
      EXPECT_EQ(encoded.sizes(), (std::vector<int64_t>{1, (length + 3) / 4, 16}));
    }
}

// However far padding reaches, and wherever the last token stands in its group of four: no output that a token is in
// changes by more than rounding, and neither do the logits.
TEST(FunnelModel, PaddingChangesNothingWhereverTheTokensEnd) {
  at::NoGradGuard no_grad;
  const at::Tensor targets = Ids({11, 12, 13}, 1);
  for (const auto& pool : kPools)
    for (int64_t length = 1; length <= 9; ++length) {
      const auto model = MakeFunnelModel(pool);
      const at::Tensor plain = Sequence(length);
      const at::Tensor encoded = model->Encode(plain), logits = model->Decode(encoded, plain, ShiftRight(targets));
      for (int64_t padding : {1, 2, 3, 4, 7, 16}) {
        const at::Tensor padded = at::constant_pad_nd(plain, {0, padding}, 0), longer = model->Encode(padded);
        EXPECT_LE((longer.slice(1, 0, encoded.size(1)) - encoded).abs().max().item<double>(), 1e-5);
        EXPECT_LE((model->Decode(longer, padded, ShiftRight(targets)) - logits).abs().max().item<double>(), 1e-5)
            << length << '+' << padding;
      }
    }
}

at::Tensor Normed(const at::Tensor& x) { return x / (x.square().mean(-1, true) + 1e-6).sqrt(); }
at::Tensor PairMeans(const at::Tensor& x_btd) { return x_btd.unflatten(1, {-1, 2}).mean(2); }

// Queries of zero and a bias that leaves each only the key one behind it: the pooled query i, at 2 i, reads key 2 i +
// 1, in the second block of the tokens, in the third of the pooled positions.
TEST(FunnelModel, APooledQuerySitsAtTwiceItsIndex) {
  at::NoGradGuard no_grad;
  for (const std::string attending : {"1", "2"}) {
    const auto model = MakeFunnelModel(nullptr, 3);
    auto weights = model->named_parameters();
    const std::string kept = "encoder.block." + attending + ".layer.0.SelfAttention.";
    for (const auto& item : weights)
      if (item.key().starts_with("encoder") &&
          (item.key().ends_with("SelfAttention.q.weight") || item.key().ends_with("DenseReluDense.wo.weight") ||
           (item.key().ends_with("o.weight") && !item.key().starts_with(kept))))
        item.value().zero_();
    at::Tensor& table = weights["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"];
    table.zero_();
    table[17].fill_(1000);  // the bucket of distance +1
    const at::Tensor inputs = Sequence(8);
    at::Tensor x = at::embedding(weights["shared.weight"], inputs);
    for (const std::string block : {"1", "2"}) {
      const at::Tensor read = Normed(x.slice(1, 1, std::nullopt, 2));
      x = PairMeans(x);
      if (block == attending)
        x = x + at::linear(at::linear(read, weights[kept + "v.weight"]), weights[kept + "o.weight"]);
    }
    EXPECT_TRUE(at::allclose(model->Encode(inputs), Normed(x), 1e-5, 1e-5)) << attending;
  }
}

TEST(FunnelModel, TheDecoderAttendsToTheShortenedSequenceOnly) {
  const auto model = MakeFunnelModel(nullptr);
  at::NoGradGuard no_grad;
  const at::Tensor inputs = Sequence(12), targets = Ids({11, 12, 13}, 1), encoded = model->Encode(inputs);
  const at::Tensor before = model->Decode(encoded, inputs, ShiftRight(targets));
  at::Tensor changed = encoded.clone();
  changed[0][2] += 1;
  EXPECT_FALSE(at::allclose(before, model->Decode(changed, inputs, ShiftRight(targets))));
  // Of twelve tokens the last four are padding: the third output counts nothing.
  const at::Tensor shorter = at::constant_pad_nd(Sequence(8), {0, 4}, 0);
  EXPECT_TRUE(at::equal(model->Decode(encoded, shorter, ShiftRight(targets)),
                        model->Decode(changed, shorter, ShiftRight(targets))));
}

TEST(FunnelModel, WhatIsPooledMatters) {
  at::NoGradGuard no_grad;
  const at::Tensor inputs = Sequence(12);
  EXPECT_FALSE(at::allclose(MakeFunnelModel(kPools[0])->Encode(inputs), MakeFunnelModel(kPools[1])->Encode(inputs)));
}

}  // namespace
}  // namespace allometry::trainer
