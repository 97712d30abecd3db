// What makes a mixture of softmaxes one.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/unit/models/model_cases.h"

namespace allometry::trainer {
namespace {

std::shared_ptr<Model> MakeMosModel(const std::string& architecture) {
  const auto model = MakeModel(ModelCase{architecture, nullptr}.Spec(SmallShape()), 3);
  model->to(at::kDouble);
  return model;
}

at::Tensor LogProbabilities(Model& model) {
  at::NoGradGuard no_grad;
  at::manual_seed(6);
  const at::Tensor inputs = at::randint(2, 50, {4, 12}, at::kLong), targets = at::randint(2, 50, {4, 20}, at::kLong);
  return model.Decode(model.Encode(inputs), inputs, ShiftRight(targets)).view({80, 50});
}

// Logits of rank d at most, less a row's divisor: the softmax bottleneck (Yang et al. 2018, section 2.1).
TEST(MosModel, BreaksTheSoftmaxBottleneck) {
  const auto rank = [](const std::string& architecture) {
    const at::Tensor log_p = at::log_softmax(LogProbabilities(*MakeMosModel(architecture)), -1);
    return at::linalg_matrix_rank(log_p, 1e-9).item<int64_t>();
  };
  EXPECT_EQ(rank("transformer"), SmallShape().d_model + 1);
  EXPECT_EQ(rank("mos"), SmallShape().vocabulary);
}

TEST(MosModel, ReturnsLogProbabilities) {
  const at::Tensor log_p = LogProbabilities(*MakeMosModel("mos"));
  EXPECT_LE(at::logsumexp(log_p, -1).abs().max().item<double>(), 1e-12);
}

// Logits of hundreds, where a softmax of float32 underflows: the loss is large and everything finite.
TEST(MosModel, IsFiniteInBfloat16WhereProbabilitiesUnderflow) {
  const auto model = MakeModel(ModelCase{"mos", nullptr}.Spec(SmallShape()), 3);
  {
    at::NoGradGuard no_grad;
    for (const auto& item : model->named_parameters()) {
      at::Tensor parameter = item.value();
      if (item.key() == "shared.weight") parameter.mul_(600);
      parameter.set_data(parameter.to(at::kBFloat16));
    }
  }
  const Batch batch{Ids({5, 6, 7, 8, 9, 10}, 2), Ids({11, 12, 13, 14, 15, 0}, 2)};
  const Loss loss = model->ComputeLoss(batch);
  // The premise: exp(-104) is nothing in float32.
  EXPECT_GT(model->TokenNll(batch).max().item<double>(), 104.0);
  loss.nll_sum.backward();
  for (const auto& item : model->named_parameters())
    EXPECT_TRUE(item.value().grad().isfinite().all().item<bool>()) << item.key();
  EXPECT_TRUE(model->TokenNll(batch).isfinite().all().item<bool>());
}

TEST(MosModel, SharesOneEmbeddingAmongItsSoftmaxes) {
  const auto names = MakeModel(ModelCase{"mos", nullptr}.Spec(SmallShape()), 0)->named_parameters();
  EXPECT_EQ(names["output.latent.weight"].sizes(), (std::vector<int64_t>{15 * 16, 16}));
  EXPECT_EQ(names["output.prior.weight"].sizes(), (std::vector<int64_t>{15, 16}));
  EXPECT_FALSE(names.contains("lm_head.weight"));
}

}  // namespace
}  // namespace allometry::trainer
