// What holds for every architecture.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <gtest/gtest.h>

#include <atomic>

#include "tests/unit/models/model_cases.h"
#include "worker/trainer/layers/row_random.h"

namespace allometry::trainer {
namespace {

// Threads that wait for one another crawl when a machine is busy with other tests; what depends on their number says
// so.
class OneThread : public ::testing::Environment {
  void SetUp() override { at::set_num_threads(1); }
};
const ::testing::Environment* const kOneThread = ::testing::AddGlobalTestEnvironment(new OneThread);

at::Tensor Logits(Model& model, const at::Tensor& inputs, const at::Tensor& targets) {
  at::NoGradGuard no_grad;
  return model.Decode(model.Encode(inputs), inputs, ShiftRight(targets));
}

Batch TwoExamples() {
  return {Ids({5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0}, 2), Ids({11, 12, 13, 14, 15, 16, 17, 18, 0, 0}, 2)};
}

class EveryModel : public ::testing::TestWithParam<ModelCase> {
 protected:
  // In evaluation mode: in training some draw random numbers even without dropout.
  std::shared_ptr<Model> Make(uint64_t seed, double dropout = 0) {
    const auto model = MakeModel(GetParam().Spec(SmallShape(), dropout), seed);
    model->eval();
    return model;
  }
};

TEST_P(EveryModel, LabelsChangeNoLogitAtOrBeforeThem) {
  const auto model = Make(3);
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

// Past a convolution's width, a chunk of prefix sums (64) and the near buckets of a relative bias.
TEST_P(EveryModel, LabelsChangeNoLogitAtOrBeforeThemInLongTargets) {
  const auto model = Make(3);
  at::manual_seed(4);
  const at::Tensor inputs = Ids({5, 6, 7, 8, 9, 10}, 1), targets = at::randint(2, 40, {1, 70}, at::kLong);
  const at::Tensor before = Logits(*model, inputs, targets);
  for (int64_t t : {0, 9, 33, 34, 35, 63, 64, 68}) {
    at::Tensor changed = targets.clone();
    changed[0][t] = 45;
    const at::Tensor after = Logits(*model, inputs, changed);
    EXPECT_TRUE(at::equal(before.slice(1, 0, t + 1), after.slice(1, 0, t + 1))) << t;
    EXPECT_FALSE(at::equal(before.select(1, t + 1), after.select(1, t + 1))) << t;
  }
}

TEST_P(EveryModel, PaddingChangesNothing) {
  const auto model = Make(4);
  const at::Tensor targets = Ids({11, 12, 13}, 1);
  const at::Tensor plain = Logits(*model, Ids({5, 6, 7}, 1), targets);
  const at::Tensor padded = Logits(*model, Ids({5, 6, 7, 0, 0, 0, 0, 0, 0}, 1), targets);
  EXPECT_LE((plain - padded).abs().max().item<double>(), 1e-5);
  const at::Tensor longer = Logits(*model, Ids({5, 6, 7}, 1), Ids({11, 12, 13, 0, 0}, 1)).slice(1, 0, 3);
  EXPECT_LE((plain - longer).abs().max().item<double>(), 1e-5);
  const at::Tensor far =
      Logits(*model, at::constant_pad_nd(Ids({5, 6, 7}, 1), {0, 57}), at::constant_pad_nd(targets, {0, 67}));
  EXPECT_LE((plain - far.slice(1, 0, 3)).abs().max().item<double>(), 1e-5);
}

// Long enough for the far buckets of a relative bias and past a convolution's width. Rounding alone may differ: the
// products of one position are summed in another order than those of all.
TEST_P(EveryModel, StepByStepIsDecode) {
  for (const auto type : {at::kFloat, at::kDouble}) {
    const auto model = Make(10);
    model->to(type);
    model->eval();
    at::manual_seed(4);
    const at::Tensor inputs = TwoExamples().inputs_bs, targets = at::randint(2, 50, {2, 40}, at::kLong);
    const at::Tensor whole = Logits(*model, inputs, targets), next = ShiftRight(targets);
    at::NoGradGuard no_grad;
    const auto state = model->StartDecoding(model->Encode(inputs), inputs);
    for (int64_t t = 0; t < 40; ++t) {
      const at::Tensor logits = model->DecodeNext(*state, next.select(1, t)), expected = whole.select(1, t);
      ASSERT_EQ(logits.sizes(), expected.sizes());
      ASSERT_EQ(logits.scalar_type(), expected.scalar_type());
      EXPECT_LE((logits - expected).abs().max().item<double>(), type == at::kFloat ? 1e-4 : 1e-9) << t;
      if (type == at::kDouble) {
        EXPECT_TRUE(at::equal(logits.argmax(1), expected.argmax(1))) << t;
      }
    }
  }
}

TEST_P(EveryModel, LossIsTheSumOfItsTokensAndIgnoresPadding) {
  const auto model = Make(5);
  const Batch batch = TwoExamples();
  const at::Tensor tokens = model->TokenNll(batch);
  EXPECT_EQ(tokens[1][4].item<float>(), 0.0f);
  EXPECT_NEAR(tokens.sum().item<double>(), model->ComputeLoss(batch).nll_sum.item<double>(), 1e-4);
  const at::Tensor log_p = at::log_softmax(Logits(*model, batch.inputs_bs, batch.targets_bt), -1);
  EXPECT_NEAR(tokens[0][1].item<double>(), -log_p[0][1][12].item<double>(), 1e-5);
}

TEST_P(EveryModel, EveryParameterGetsAGradient) {
  const auto model = Make(6);
  model->train();
  model->ComputeLoss(TwoExamples()).nll_sum.backward();
  for (const auto& item : model->named_parameters()) {
    ASSERT_TRUE(item.value().grad().defined()) << item.key();
    EXPECT_TRUE(item.value().grad().isfinite().all().item<bool>()) << item.key();
    EXPECT_GT(item.value().grad().abs().max().item<double>(), 0) << item.key();
  }
}

// A whole model's gradient along a random direction against the difference of its losses, in float64.
TEST_P(EveryModel, GradientIsTheSlopeOfTheLoss) {
  const auto model = Make(7);
  model->to(at::kDouble);
  model->train();
  const Batch batch = TwoExamples();
  BeginRows(3, 1, 0, 2);
  model->ComputeLoss(batch).nll_sum.backward();
  at::NoGradGuard no_grad;
  at::manual_seed(2);
  constexpr double kStep = 1e-6;
  std::vector<at::Tensor> direction;
  double slope = 0;
  for (const at::Tensor& p : model->parameters()) {
    direction.push_back(at::randn_like(p));
    slope += (direction.back() * p.grad()).sum().item<double>();
  }
  const auto loss_at = [&](double distance) {
    const auto parameters = model->parameters();
    for (size_t i = 0; i < parameters.size(); ++i) parameters[i].add_(direction[i], distance);
    BeginRows(3, 1, 0, 2);
    const double loss = model->ComputeLoss(batch).nll_sum.item<double>();
    for (size_t i = 0; i < parameters.size(); ++i) parameters[i].sub_(direction[i], distance);
    return loss;
  };
  EXPECT_NEAR((loss_at(kStep) - loss_at(-kStep)) / (2 * kStep), slope, 1e-5 * std::max(1.0, std::abs(slope)));
}

TEST_P(EveryModel, EqualSeedsGiveEqualWeights) {
  const auto a = Make(1), b = Make(1), other = Make(2);
  for (const auto& item : a->named_parameters()) {
    EXPECT_TRUE(at::equal(item.value(), b->named_parameters()[item.key()])) << item.key();
    const bool random = item.key().find("norm") == std::string::npos;
    EXPECT_EQ(at::equal(item.value(), other->named_parameters()[item.key()]), !random) << item.key();
  }
}

TEST_P(EveryModel, Bfloat16IsNearFloat32) {
  const auto model = Make(8);
  const Batch batch = TwoExamples();
  const double exact = model->ComputeLoss(batch).nll_sum.item<double>();
  for (at::Tensor parameter : model->parameters()) {
    at::NoGradGuard no_grad;
    parameter.set_data(parameter.to(at::kBFloat16));
  }
  const Loss loss = model->ComputeLoss(batch);
  EXPECT_EQ(loss.nll_sum.scalar_type(), at::kFloat);
  EXPECT_NEAR(loss.nll_sum.item<double>() / exact, 1.0, 0.02);
  loss.nll_sum.backward();
  for (const at::Tensor& p : model->parameters()) EXPECT_EQ(p.grad().scalar_type(), at::kBFloat16);
}

std::atomic<int64_t> products{0};

std::unique_ptr<at::ObserverContext> CountProduct(const at::RecordFunction& record) {
  const std::string name = record.name();
  if (name == "aten::mm" || name == "aten::addmm" || name == "aten::bmm") ++products;
  return nullptr;
}

// Two micro-batches, with dropout. That it computes twice shows in the number of products; that it leaves the
// draws as it found them, in the next one.
TEST_P(EveryModel, RecomputationChangesNotABit) {
  const auto run = [&](bool recompute) {
    const auto model = Make(11, 0.1);
    model->train();
    model->set_recompute(recompute);
    BeginRows(3, 1, 0, 2);
    std::vector<at::Tensor> results;
    for (int i = 0; i < 2; ++i) {
      const Loss loss = model->ComputeLoss(TwoExamples());
      results.push_back(loss.nll_sum.detach());
      const at::Tensor& auxiliary = loss.side.auxiliary;
      if (auxiliary.defined()) results.push_back(auxiliary.detach());
      (auxiliary.defined() ? loss.nll_sum + auxiliary : loss.nll_sum).backward();
      for (const auto& [name, mean] : loss.side.means) results.push_back(mean.sum / mean.count);
    }
    results.push_back(DropoutMask({2, 40}, at::kFloat, 0.5));
    for (const at::Tensor& p : model->parameters()) results.push_back(p.grad().defined() ? p.grad() : at::zeros({}));
    return results;
  };
  const auto handle = at::addGlobalCallback(at::RecordFunctionCallback(&CountProduct));
  products = 0;
  const auto kept = run(false);
  const int64_t once = products.exchange(0);
  const auto recomputed = run(true);
  at::removeCallback(handle);
  EXPECT_GT(products, once * 6 / 5);
  ASSERT_EQ(kept.size(), recomputed.size());
  for (size_t i = 0; i < kept.size(); ++i) EXPECT_TRUE(at::equal(kept[i], recomputed[i])) << i;
}

// The z-loss is trained on and not reported.
TEST_P(EveryModel, ZLossIsBesideTheLikelihood) {
  ModelSpec spec = GetParam().Spec(SmallShape());
  const auto plain = MakeModel(spec, 12);
  spec.z_loss = 0.01;
  const auto model = MakeModel(spec, 12);
  plain->eval();
  model->eval();
  const Loss loss = model->ComputeLoss(TwoExamples());
  ASSERT_TRUE(loss.objective_sum.defined());
  EXPECT_EQ(loss.nll_sum.item<double>(), plain->ComputeLoss(TwoExamples()).nll_sum.item<double>());
  EXPECT_GT(loss.objective_sum.item<double>(), loss.nll_sum.item<double>());
  EXPECT_FALSE(plain->ComputeLoss(TwoExamples()).objective_sum.defined());
  EXPECT_TRUE(at::equal(model->TokenNll(TwoExamples()), plain->TokenNll(TwoExamples())));
}

TEST_P(EveryModel, DropoutActsInTrainingOnlyAndFollowsTheSeed) {
  const auto model = Make(9, 0.1);
  const Batch batch = TwoExamples();
  const auto loss = [&](uint64_t seed) {
    BeginRows(seed, 1, 0, 2);
    return model->ComputeLoss(batch).nll_sum.item<double>();
  };
  model->train();
  EXPECT_EQ(loss(1), loss(1));
  EXPECT_EQ(loss(1) == loss(2), !GetParam().drops);
  model->eval();
  EXPECT_EQ(loss(1), loss(2));
}

INSTANTIATE_TEST_SUITE_P(Architectures, EveryModel, ::testing::ValuesIn(ModelCases()), [](const auto& info) {
  std::string name = info.param.Name();
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
});

TEST(AlbertModel, SharesOneBlockAmongItsLayers) {
  const auto names = MakeModel(ModelCase{"albert", nullptr}.Spec(SmallShape()), 0)->named_parameters();
  EXPECT_TRUE(names.contains("encoder.block.0.layer.0.SelfAttention.q.weight"));
  EXPECT_FALSE(names.contains("encoder.block.1.layer.0.SelfAttention.q.weight"));
  EXPECT_EQ(names["shared.weight"].size(1), 8);
}

// Applied twice, the shared block is a deeper model than applied once.
TEST(AlbertModel, DepthCounts) {
  const ModelCase albert{"albert", nullptr};
  arch::Shape shallow = SmallShape(), deep = SmallShape();
  shallow.encoder_layers = 1;
  const auto a = MakeModel(albert.Spec(shallow), 3), b = MakeModel(albert.Spec(deep), 3);
  const Batch batch = TwoExamples();
  EXPECT_NE(a->ComputeLoss(batch).nll_sum.item<double>(), b->ComputeLoss(batch).nll_sum.item<double>());
}

// The encoder of lconv sees four positions to each side and layer, no further.
TEST(LconvModel, HasTheReachOfItsKernels) {
  const auto model = MakeModel(ModelCase{"lconv", nullptr}.Spec(SmallShape()), 3);  // 2 encoder layers: reach 8
  at::NoGradGuard no_grad;
  at::Tensor inputs = at::randint(2, 50, {1, 30}, at::kLong);
  const at::Tensor before = model->Encode(inputs);
  inputs[0][15] = inputs[0][15].item<int64_t>() == 7 ? 8 : 7;
  const at::Tensor changed = (model->Encode(inputs) != before).any(-1)[0];
  for (int64_t t = 0; t < 30; ++t) EXPECT_EQ(changed[t].item<bool>(), std::abs(t - 15) <= 8) << t;
}

TEST(MakeModel, NamesWhatThereIs) {
  EXPECT_THROW(MakeModel({"perceptron", SmallShape(), common::Json::object()}, 0), std::invalid_argument);
}

}  // namespace
}  // namespace allometry::trainer
