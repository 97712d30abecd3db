#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "worker/trainer/layers/position_bias.h"
#include "worker/trainer/layers/sublayer.h"
#include "worker/trainer/models/model.h"

namespace allometry::trainer {
namespace {

ModelSpec Spec() { return {"transformer", {2, 3, 16, 24, 2, 5, 50}, common::Json::object(), 0.0}; }

TEST(TransformerModel, CarriesHuggingFaceNames) {
  const auto names = MakeModel(Spec(), 0)->named_parameters();
  for (const char* name :
       {"shared.weight", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "encoder.block.1.layer.1.DenseReluDense.wo.weight", "decoder.block.2.layer.1.EncDecAttention.q.weight",
        "decoder.block.2.layer.2.layer_norm.weight", "decoder.final_layer_norm.weight"})
    EXPECT_TRUE(names.contains(name)) << name;
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
