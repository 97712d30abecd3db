#include <gtest/gtest.h>
#include <torch/autograd.h>

#include "worker/trainer/layers/t5_layers.h"
#include "worker/trainer/models/model.h"

namespace allometry::trainer {
namespace {

ModelSpec Spec() {
  return {"transformer", {2, 3, 16, 24, 2, 5, 50}, common::Json::object(), 0.0};
}

at::Tensor Ids(std::vector<int64_t> ids, int64_t rows) {
  return at::tensor(ids, at::kLong).view({rows, -1}).clone();
}

at::Tensor Logits(Model& model, const at::Tensor& inputs, const at::Tensor& targets) {
  torch::NoGradGuard no_grad;
  return model.Decode(model.Encode(inputs), inputs, ShiftRight(targets));
}

TEST(TransformerModel, ParametersAreThoseThatArchCounts) {
  const arch::Architecture& costs = **arch::FindArchitecture("transformer");
  for (arch::Shape shape : {Spec().shape, arch::FindSize("nano").value(), arch::FindSize("tiny").value()}) {
    int64_t total = 0;
    for (const at::Tensor& p : MakeModel({"transformer", shape, common::Json::object()}, 0)->parameters()) total += p.numel();
    EXPECT_EQ(total, costs.CountParameters(shape, common::Json::object()).total);
  }
}

TEST(TransformerModel, EqualSeedsGiveEqualWeights) {
  const auto a = MakeModel(Spec(), 1), b = MakeModel(Spec(), 1), other = MakeModel(Spec(), 2);
  for (const auto& item : a->named_parameters()) {
    EXPECT_TRUE(at::equal(item.value(), b->named_parameters()[item.key()])) << item.key();
    if (item.key().find("norm") == std::string::npos)
      EXPECT_FALSE(at::equal(item.value(), other->named_parameters()[item.key()])) << item.key();
  }
}

TEST(TransformerModel, CarriesHuggingFaceNames) {
  const auto names = MakeModel(Spec(), 0)->named_parameters();
  for (const char* name :
       {"shared.weight", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "encoder.block.1.layer.1.DenseReluDense.wo.weight", "decoder.block.2.layer.1.EncDecAttention.q.weight",
        "decoder.block.2.layer.2.layer_norm.weight", "decoder.final_layer_norm.weight"})
    EXPECT_TRUE(names.contains(name)) << name;
}

TEST(TransformerModel, LabelsChangeNoLogitAtOrBeforeThem) {
  const auto model = MakeModel(Spec(), 3);
  const at::Tensor inputs = Ids({5, 6, 7, 8, 9, 10}, 1), targets = Ids({11, 12, 13, 14, 15}, 1);
  const at::Tensor before = Logits(*model, inputs, targets);
  for (int64_t t = 0; t < 4; ++t) {
    at::Tensor changed = targets.clone();
    changed[0][t] = 40;
    const at::Tensor after = Logits(*model, inputs, changed);
    EXPECT_TRUE(at::equal(before.slice(1, 0, t + 1), after.slice(1, 0, t + 1))) << t;
    EXPECT_FALSE(at::equal(before.select(1, t + 1), after.select(1, t + 1))) << t;
  }
  at::Tensor other_input = inputs.clone();
  other_input[0][2] = 30;
  EXPECT_FALSE(at::allclose(before, Logits(*model, other_input, targets)));
}

TEST(TransformerModel, PaddingChangesNothing) {
  const auto model = MakeModel(Spec(), 4);
  const at::Tensor targets = Ids({11, 12, 13}, 1);
  const at::Tensor plain = Logits(*model, Ids({5, 6, 7}, 1), targets);
  const at::Tensor padded = Logits(*model, Ids({5, 6, 7, 0, 0, 0, 0}, 1), targets);
  EXPECT_TRUE(at::allclose(plain, padded, 0, 1e-5));
  const at::Tensor longer = Logits(*model, Ids({5, 6, 7}, 1), Ids({11, 12, 13, 0, 0}, 1)).slice(1, 0, 3);
  EXPECT_TRUE(at::allclose(plain, longer, 0, 1e-5));
}

TEST(TransformerModel, LossIsTheSumOfItsTokensAndIgnoresPadding) {
  const auto model = MakeModel(Spec(), 5);
  const Batch batch{Ids({5, 6, 7, 8, 9, 0}, 2), Ids({11, 12, 13, 14, 0, 0}, 2)};
  const at::Tensor tokens = model->TokenNll(batch);
  EXPECT_EQ(tokens[1][1].item<float>(), 0.0f);
  EXPECT_NEAR(tokens.sum().item<double>(), model->ComputeLoss(batch).nll_sum.item<double>(), 1e-4);
  const at::Tensor probabilities = at::log_softmax(Logits(*model, batch.inputs_bs, batch.targets_bt), -1);
  EXPECT_NEAR(tokens[0][1].item<double>(), -probabilities[0][1][12].item<double>(), 1e-5);
}

TEST(TransformerModel, EveryParameterGetsAGradient) {
  const auto model = MakeModel(Spec(), 6);
  model->ComputeLoss({Ids({5, 6, 7, 8, 9, 10}, 2), Ids({11, 12, 13, 14}, 2)}).nll_sum.backward();
  for (const auto& item : model->named_parameters()) {
    ASSERT_TRUE(item.value().grad().defined()) << item.key();
    EXPECT_TRUE(item.value().grad().isfinite().all().item<bool>()) << item.key();
    EXPECT_GT(item.value().grad().abs().max().item<double>(), 0) << item.key();
  }
}

TEST(RmsNorm, AgainstItsFormulaInFloat64) {
  RmsNorm norm(8);
  const at::Tensor x = at::randn({3, 8});
  const at::Tensor x64 = x.to(at::kDouble);
  const at::Tensor expected = x64 / (x64.square().mean(-1, true) + 1e-6).sqrt();
  EXPECT_TRUE(at::allclose(norm.forward(x).to(at::kDouble), expected, 1e-5, 1e-6));
}

TEST(RelativeBuckets, ExactNearAndSaturatedFar) {
  const at::Tensor both = RelativeBuckets(300, 300, true), causal = RelativeBuckets(300, 300, false);
  EXPECT_EQ(both[10][10].item<int64_t>(), 0);
  EXPECT_EQ(both[10][7].item<int64_t>(), 3);
  EXPECT_EQ(both[10][13].item<int64_t>(), 16 + 3);
  EXPECT_EQ(both[0][299].item<int64_t>(), 31);
  EXPECT_EQ(both[299][0].item<int64_t>(), 15);
  EXPECT_EQ(causal[10][13].item<int64_t>(), 0) << "the future shares the bucket of distance 0; the mask hides it";
  EXPECT_EQ(causal[20][5].item<int64_t>(), 15);
  EXPECT_EQ(causal[299][0].item<int64_t>(), 31);
}

}  // namespace
}  // namespace allometry::trainer
