// What makes a dynamic convolution one.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/models/model_cases.h"
#include "worker/trainer/layers/dynamic_convolution.h"
#include "worker/trainer/layers/light_convolution.h"

namespace allometry::trainer {
namespace {

// Every output from its definition, one product at a time.
TEST(DynamicConvolution, AgainstItsDefinitionInFloat64) {
  at::manual_seed(3);
  constexpr int64_t kLength = 11, kChannels = 6;
  for (const int64_t kernels : {6, 2})
    for (const int64_t first : {-4, -8}) {
      const at::Tensor x = at::randn({2, kLength, kChannels}), logits = at::randn({2, kLength, 9, kernels});
      const at::Tensor y = DynamicConvolution(x, logits, first);
      for (int64_t b = 0; b < 2; ++b)
        for (int64_t t = 0; t < kLength; ++t)
          for (int64_t c = 0; c < kChannels; ++c) {
            double sum = 0, divisor = 0;
            for (int64_t j = 0; j < 9; ++j) {
              const double weight = std::exp(logits[b][t][j][c * kernels / kChannels].item<double>());
              divisor += weight;
              if (const int64_t at = t + first + j; at >= 0 && at < kLength) sum += weight * x[b][at][c].item<double>();
            }
            ASSERT_NEAR(y[b][t][c].item<double>(), sum / divisor, 1e-5) << kernels << ' ' << first << ' ' << t;
          }
    }
}

TEST(DynamicConvolution, WithEqualKernelsEverywhereItIsTheLightweightOne) {
  at::manual_seed(4);
  const at::Tensor x = at::randn({2, 20, 12}), kernel = at::randn({9, 12});
  const at::Tensor light = DepthwiseConvolution(x, at::softmax(kernel, 0), -4);
  EXPECT_TRUE(at::allclose(DynamicConvolution(x, kernel.expand({2, 20, 9, 12}), -4), light, 1e-5, 1e-6));
}

// The layer is not linear in its convolution: doubling what is gated changes the kernels as well.
TEST(DconvModel, KernelsFollowTheContent) {
  at::NoGradGuard no_grad;
  const auto model = MakeModel(ModelCase{"dconv", nullptr}.Spec(SmallShape()), 3);
  auto weights = model->named_parameters();
  const at::Tensor inputs = Ids({5, 6, 7, 8, 9, 10, 11, 12, 13, 14}, 1), before = model->Encode(inputs);
  for (int64_t layer : {0, 1})
    weights["encoder.block." + std::to_string(layer) + ".layer.0.DynamicConvolution.kernel.weight"].zero_();
  EXPECT_FALSE(at::allclose(before, model->Encode(inputs)));
}

// Four positions to each side and layer, no further; and no relative bias.
TEST(DconvModel, HasTheReachOfItsKernels) {
  at::NoGradGuard no_grad;
  const auto model = MakeModel(ModelCase{"dconv", nullptr}.Spec(SmallShape()), 3);  // 2 encoder layers: reach 8
  at::Tensor inputs = 2 + at::arange(30).unsqueeze(0);
  const at::Tensor before = model->Encode(inputs);
  inputs[0][15] = 40;
  const at::Tensor changed = (model->Encode(inputs) != before).any(-1)[0];
  for (int64_t t = 0; t < 30; ++t) EXPECT_EQ(changed[t].item<bool>(), std::abs(t - 15) <= 8) << t;
  for (const auto& item : model->named_parameters())
    EXPECT_EQ(item.key().find("relative_attention_bias"), std::string::npos);
}

}  // namespace
}  // namespace allometry::trainer
