// What makes the Universal Transformer one (Dehghani et al. 2018, arXiv 1807.03819).
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/models/model_cases.h"
#include "worker/trainer/layers/gru.h"
#include "worker/trainer/layers/halting.h"
#include "worker/trainer/layers/side_terms.h"

namespace allometry::trainer {
namespace {

std::shared_ptr<Model> MakeUniversalModel(const common::Json& given, double dropout = 0) {
  return MakeModel(ModelCase{"universal", given}.Spec(SmallShape(), dropout), 3);
}

Batch TwoUniversalExamples() {
  return {Ids({5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0}, 2), Ids({11, 12, 13, 14, 15, 16, 17, 18, 0, 0}, 2)};
}

double LossOf(Model& model) {
  at::NoGradGuard no_grad;
  return model.ComputeLoss(TwoUniversalExamples()).nll_sum.item<double>();
}

TEST(UniversalModel, HasOneBlockAndARowOfItsSignalForEveryStep) {
  auto names = MakeUniversalModel(nullptr)->named_parameters();
  EXPECT_TRUE(names.contains("decoder.block.0.layer.2.DenseReluDense.wi.weight"));
  EXPECT_FALSE(names.contains("decoder.block.1.layer.0.layer_norm.weight"));
  EXPECT_EQ(names["encoder.step_signal.weight"].sizes(), (std::vector<int64_t>{2 * 2, 16}));
  EXPECT_EQ(names["decoder.step_signal.weight"].sizes(), (std::vector<int64_t>{2 * 3, 16}));
  EXPECT_EQ(names["lm_head.weight"].sizes(), names["shared.weight"].sizes());
  const double sd = names["lm_head.weight"].std().item<double>();
  EXPECT_NEAR(sd, std::pow(16.0, -0.5), 0.02);
}

TEST(UniversalModel, EverySublayerHasSixSquaresOfGates) {
  const auto gated = MakeUniversalModel(nullptr), plain = MakeUniversalModel({{"gate", "none"}});
  const auto count = [](const Model& model) {
    int64_t total = 0;
    for (const at::Tensor& p : model.parameters()) total += p.numel();
    return total;
  };
  EXPECT_EQ(count(*gated) - count(*plain), (2 + 3) * (6 * 16 * 16 + 2 * 16));
}

TEST(UniversalModel, EveryRowOfTheSignalCounts) {
  const auto model = MakeUniversalModel(nullptr);
  const double before = LossOf(*model);
  for (const char* name : {"encoder.step_signal.weight", "decoder.step_signal.weight"}) {
    at::Tensor signal = model->named_parameters()[name];
    for (int64_t row = 0; row < signal.size(0); ++row) {
      at::NoGradGuard no_grad;
      const at::Tensor kept = signal[row].clone();
      signal[row].add_(1);
      EXPECT_NE(LossOf(*model), before) << name << ' ' << row;
      signal[row].copy_(kept);
    }
  }
}

TEST(UniversalModel, DropsNothing) {
  const auto model = MakeUniversalModel(nullptr, 0.5);
  model->train();
  EXPECT_EQ(LossOf(*model), LossOf(*MakeUniversalModel(nullptr)));
}

TEST(GruGate, AgainstItsFormula) {
  GruGate gate(3);
  gate.to(at::kDouble);
  at::manual_seed(4);
  at::NoGradGuard no_grad;
  for (at::Tensor p : gate.parameters()) p.add_(at::randn_like(p));
  auto names = gate.named_parameters();
  const at::Tensor x = at::randn({3}, at::kDouble), n = at::randn({3}, at::kDouble), y = at::randn({3}, at::kDouble);
  const auto norm = [&](const at::Tensor& v, const char* name) {
    return v / std::sqrt(v.square().mean().item<double>() + 1e-6) * names[name];
  };
  const at::Tensor normed_y = norm(y, "value_norm.weight");
  const at::Tensor w = names["update_reset.weight"], wc = names["candidate.weight"];
  const at::Tensor pair = at::cat({n, normed_y});
  const at::Tensor u = 1 / (1 + (-at::mv(w.slice(0, 0, 3), pair)).exp());
  const at::Tensor r = 1 / (1 + (-at::mv(w.slice(0, 3), pair)).exp());
  const at::Tensor c = at::tanh(at::mv(wc, at::cat({norm(r * x, "reset_norm.weight"), normed_y})));
  const at::Tensor expected = (1 - u) * x + u * c;
  const auto as_batch = [](const at::Tensor& t) { return t.view({1, 1, 3}); };
  EXPECT_LE((gate.forward(as_batch(x), as_batch(n), as_batch(y)).flatten() - expected).abs().max().item<double>(),
            1e-12);
}

double Logit(double p) { return std::log(p / (1 - p)); }

// Three positions with given halting probabilities in four steps; the state after step n is 10^n.
TEST(Halting, StopsEachPositionByItself) {
  const at::Tensor halt = at::ones({1, 1}, at::kDouble);
  const double p[3][4] = {{.5, .3, .3, .9}, {.96, .1, .1, .1}, {.1, .1, .1, .1}};
  Halting halting(at::zeros({1, 3, 1}, at::kDouble));
  for (int64_t step = 0; step < 4; ++step) {
    const at::Tensor seen =
        at::tensor({Logit(p[0][step]), Logit(p[1][step]), Logit(p[2][step])}, at::kDouble).view({1, 3, 1});
    halting.Decide(seen, halt, /*last=*/step == 3);
    EXPECT_EQ(halting.running()[0][0].item<bool>(), step < 3);
    EXPECT_EQ(halting.running()[0][1].item<bool>(), step < 1);
    EXPECT_TRUE(halting.running()[0][2].item<bool>());
    halting.Add(at::full({1, 3, 1}, std::pow(10.0, static_cast<double>(step)), at::kDouble));
  }
  const at::Tensor mean = halting.mean_state().flatten(), steps = halting.steps().flatten();
  EXPECT_NEAR(mean[0].item<double>(), .5 + .3 * 10 + .2 * 100, 1e-9);
  EXPECT_NEAR(mean[1].item<double>(), 1, 1e-9);
  EXPECT_NEAR(mean[2].item<double>(), .1 + .1 * 10 + .1 * 100 + .7 * 1000, 1e-9);
  EXPECT_TRUE(at::equal(steps, at::tensor({3., 1., 4.}, at::kDouble)));
}

// A halting probability of a half stops every position after two steps: the third row of the signal is never read.
TEST(UniversalModel, NothingHappensAfterAllHaveHalted) {
  const auto model = MakeUniversalModel({{"halting", "act"}});
  at::NoGradGuard no_grad;
  auto names = model->named_parameters();
  for (const char* stack : {"encoder", "decoder"}) names[std::string(stack) + ".halt.weight"].zero_();
  const double before = LossOf(*model);
  const auto with_other_row = [&](int64_t row) {
    at::Tensor signal = names["decoder.step_signal.weight"];
    const at::Tensor kept = signal.clone();
    signal[row].add_(1);
    const double loss = LossOf(*model);
    signal.copy_(kept);
    return loss;
  };
  EXPECT_NE(with_other_row(1), before);
  EXPECT_EQ(with_other_row(2), before);
  const auto means = model->ComputeLoss(TwoUniversalExamples()).side.means;
  EXPECT_EQ(means.at("encoder_ponder_steps").sum.item<double>(), 2 * 11);
  EXPECT_EQ(means.at("encoder_ponder_steps").count.item<double>(), 11);
  EXPECT_EQ(means.at("decoder_ponder_steps").sum.item<double>(), 2 * 8);
}

}  // namespace
}  // namespace allometry::trainer
