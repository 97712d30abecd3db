// What makes an MLP-Mixer one.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/unit/models/model_cases.h"
#include "worker/trainer/layers/token_mixing.h"

namespace allometry::trainer {
namespace {

std::shared_ptr<Model> MakeMixerModel(int64_t input_length, const std::string& decoder = "attention") {
  const common::Json given{{"decoder", decoder}, {"input_length", input_length}, {"target_length", 10}};
  return MakeModel(ModelCase{"mixer", given}.Spec(SmallShape()), 3);
}

TEST(MixerModel, TheLengthIsPartOfItsParameters) {
  const auto names = MakeMixerModel(20, "causal_mixing")->named_parameters();
  EXPECT_EQ(names["encoder.block.1.layer.0.TokenMixing.wi.weight"].sizes(), (std::vector<int64_t>{8, 20}));
  EXPECT_EQ(names["encoder.block.1.layer.0.TokenMixing.wo.weight"].sizes(), (std::vector<int64_t>{20, 8}));
  EXPECT_EQ(names["decoder.block.2.layer.0.TokenMixing.wi.weight"].sizes(), (std::vector<int64_t>{8, 10}));
  for (const auto& item : names) EXPECT_EQ(item.key().find("SelfAttention"), std::string::npos);
  EXPECT_TRUE(MakeMixerModel(20)->named_parameters().contains(
      "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"));
}

TEST(MixerModel, RefusesMorePositionsThanItHas) {
  at::NoGradGuard no_grad;
  const auto model = MakeMixerModel(12, "causal_mixing");
  const at::Tensor inputs = at::full({1, 12}, 5, at::kLong), encoded = model->Encode(inputs);
  EXPECT_NO_THROW(model->Decode(encoded, inputs, at::full({1, 10}, 5, at::kLong)));
  EXPECT_ANY_THROW(model->Encode(at::full({1, 13}, 5, at::kLong)));
  EXPECT_ANY_THROW(model->Decode(encoded, inputs, at::full({1, 11}, 5, at::kLong)));
}

// A shorter input is one that is padded to the full length: the products left out are with zeros.
TEST(MixerModel, ShorterInputsCountAsPadded) {
  at::NoGradGuard no_grad;
  const auto model = MakeMixerModel(12);
  const at::Tensor inputs = Ids({5, 6, 7, 8, 9}, 1), padded = Ids({5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0, 0}, 1);
  EXPECT_LE((model->Encode(padded).slice(1, 0, 5) - model->Encode(inputs)).abs().max().item<double>(), 1e-5);
}

// Every position reaches every other by weights of its own: what one changes depends on the two places, and not only on
// their distance, as with a relative bias or a convolution.
TEST(TokenMixing, IsTheSumOfItsProducts) {
  at::NoGradGuard no_grad;
  at::manual_seed(5);
  TokenMixingSublayer layer(6, 4, 9, /*causal=*/false, 0);
  layer.Initialise(at::globalContext().defaultGenerator(at::kCPU));
  layer.to(at::kDouble);
  auto weights = layer.named_parameters();
  const at::Tensor wi = weights["TokenMixing.wi.weight"], wo = weights["TokenMixing.wo.weight"];
  const at::Tensor x = at::randn({1, 7, 6}, at::kDouble), y = layer.forward(x, {}) - x;
  const at::Tensor normed = x / (x.square().mean(-1, true) + 1e-6).sqrt();
  for (int64_t t = 0; t < 7; ++t)
    for (int64_t c = 0; c < 6; ++c) {
      at::Tensor sum = at::zeros({}, at::kDouble);
      for (int64_t j = 0; j < 4; ++j) {
        at::Tensor read = at::zeros({}, at::kDouble);
        for (int64_t s = 0; s < 7; ++s) read += wi[j][s] * normed[0][s][c];
        sum += wo[t][j] * at::gelu(read, "tanh");
      }
      EXPECT_NEAR(y[0][t][c].item<double>(), sum.item<double>(), 1e-12) << t << ' ' << c;
    }
}

// Position s reaches t > s if a unit j stands between them: s <= floor(j T / h) <= t.
TEST(TokenMixing, CausalUnitsReadUpToTheirPlaceAndFeedFromThere) {
  at::NoGradGuard no_grad;
  at::manual_seed(5);
  for (const auto& [hidden, length] : {std::pair<int64_t, int64_t>{4, 14}, {9, 6}, {5, 5}}) {
    TokenMixingSublayer layer(8, hidden, length, /*causal=*/true, 0);
    layer.Initialise(at::globalContext().defaultGenerator(at::kCPU));
    const at::Tensor x = at::randn({1, length, 8}), before = layer.forward(x, {});
    for (int64_t s = 0; s < length; ++s) {
      at::Tensor other = x.clone();
      other[0][s] += at::randn({8});
      const at::Tensor changed = (layer.forward(other, {}) != before).any(-1)[0];
      for (int64_t t = 0; t < length; ++t) {
        bool reached = t == s;  // the residual
        for (int64_t j = 0; j < hidden; ++j) reached |= s <= j * length / hidden && j * length / hidden <= t;
        EXPECT_EQ(changed[t].item<bool>(), reached) << hidden << ' ' << length << ": " << s << " to " << t;
      }
    }
  }
}

}  // namespace
}  // namespace allometry::trainer
