// What makes a Switch Transformer one.
#include "arch/switch.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/unit/models/model_cases.h"
#include "worker/trainer/layers/experts.h"
#include "worker/trainer/models/switch.h"

namespace allometry::trainer {
namespace {

constexpr int64_t kModel = 8, kHidden = 12, kExperts = 5, kCapacity = 3;
const std::string kWi = "mlp.experts.wi.weight", kWo = "mlp.experts.wo.weight",
                  kRouter = "mlp.router.classifier.weight";

// In float64 and evaluation mode.
std::shared_ptr<ExpertsSublayer> Layer(double dropout = 0) {
  const auto layer =
      std::make_shared<ExpertsSublayer>(ExpertsSublayer::Sizes{kModel, kHidden, kExperts, kCapacity}, dropout);
  at::manual_seed(1);
  layer->Initialise(at::globalContext().defaultGenerator(at::kCPU));
  layer->to(at::kDouble);
  layer->eval();
  return layer;
}

at::Tensor NormedInputs(const at::Tensor& x) { return x / (x.square().mean(-1, true) + 1e-6).sqrt(); }

// The layer of one sequence, token by token.
struct Naive {
  at::Tensor y_td;
  double balance = 0;
  int64_t dropped = 0;
};
Naive RunNaively(ExpertsSublayer& layer, const at::Tensor& x_td, const at::Tensor& token_t) {
  const auto weights = layer.named_parameters();
  std::vector<int64_t> sent(kExperts, 0);
  std::vector<double> probability(kExperts, 0);
  Naive out{x_td.clone(), 0, 0};
  for (int64_t t = 0; t < x_td.size(0); ++t) {
    if (!token_t[t].item<bool>()) continue;
    const at::Tensor n = NormedInputs(x_td[t]), p = at::softmax(at::mv(weights[kRouter], n), 0);
    const int64_t e = p.argmax().item<int64_t>();
    for (int64_t i = 0; i < kExperts; ++i) probability[static_cast<size_t>(i)] += p[i].item<double>();
    if (sent[static_cast<size_t>(e)]++ < kCapacity)
      out.y_td[t] += p[e] * at::mv(weights[kWo][e], at::relu(at::mv(weights[kWi][e], n)));
    else
      ++out.dropped;
  }
  const double tokens = std::max<double>(1, token_t.sum().item<double>());
  for (size_t i = 0; i < kExperts; ++i)
    out.balance += kExperts * (static_cast<double>(sent[i]) / tokens) * (probability[i] / tokens);
  return out;
}

struct Input {
  at::Tensor x_btd, token_bt;
};
// Long enough that experts overflow; padding at the end, between tokens, everywhere and nowhere.
Input LayerInput() {
  at::manual_seed(2);
  Input in{at::randn({4, 17, kModel}, at::kDouble), at::ones({4, 17}, at::kBool)};
  in.token_bt[0].slice(0, 9).fill_(false);
  in.token_bt[1].slice(0, 2, 5).fill_(false);
  in.token_bt[2].fill_(false);
  return in;
}

StackContext ContextOf(const Input& in, SideTerms* side = nullptr) {
  StackContext context;
  context.token_bt = in.token_bt;
  context.side = side;
  return context;
}

TEST(SwitchExperts, AreWhatALoopOverTokensComputes) {
  at::NoGradGuard no_grad;
  const auto layer = Layer();
  const Input in = LayerInput();
  SideTerms side;
  const at::Tensor y = layer->forward(in.x_btd, ContextOf(in, &side));
  double balance = 0;
  int64_t dropped = 0;
  for (int64_t b = 0; b < 4; ++b) {
    const Naive naive = RunNaively(*layer, in.x_btd[b], in.token_bt[b]);
    EXPECT_LE((y[b] - naive.y_td).abs().max().item<double>(), 1e-12) << b;
    balance += naive.balance;
    dropped += naive.dropped;
  }
  EXPECT_GT(dropped, 5);
  EXPECT_NEAR(side.auxiliary.item<double>(), 1e-2 * balance, 1e-14);
  EXPECT_EQ(side.means.at("dropped_fraction").sum.item<int64_t>(), dropped);
  EXPECT_EQ(side.means.at("dropped_fraction").count.item<int64_t>(), in.token_bt.sum().item<int64_t>());
}

TEST(SwitchExperts, FirstComeFirstServedAndTheRestPassesThrough) {
  at::NoGradGuard no_grad;
  const auto layer = Layer();
  const at::Tensor x =
      at::randn({1, 1, kModel}, at::kDouble).expand({1, 9, kModel}).contiguous();  // all want one expert
  Input in{x, at::ones({1, 9}, at::kBool)};
  in.token_bt[0][1].fill_(false);
  const at::Tensor unchanged = (layer->forward(x, ContextOf(in)) == x).all(-1)[0];
  for (int64_t t = 0; t < 9; ++t) EXPECT_EQ(unchanged[t].item<bool>(), t == 1 || t > kCapacity) << t;
}

TEST(SwitchExperts, StepsKeepCountOfWhoWasServed) {
  at::NoGradGuard no_grad;
  const auto layer = Layer();
  const Input in = LayerInput();
  const at::Tensor whole = layer->forward(in.x_btd, ContextOf(in));
  LayerCache cache;
  for (int64_t t = 0; t < 17; ++t) {
    const Input one{in.x_btd.slice(1, t, t + 1), in.token_bt.slice(1, t, t + 1)};
    const at::Tensor y = layer->Step(one.x_btd, ContextOf(one), cache);
    EXPECT_LE((y - whole.slice(1, t, t + 1)).abs().max().item<double>(), 1e-12) << t;
  }
}

TEST(SwitchExperts, JitterActsInTrainingOnlyAndLittle) {
  at::NoGradGuard no_grad;
  const auto layer = Layer();
  const Input in{at::randn({1, kCapacity, kModel}, at::kDouble), at::ones({1, kCapacity}, at::kBool)};  // none drops
  const at::Tensor calm = layer->forward(in.x_btd, ContextOf(in));
  EXPECT_TRUE(at::equal(calm, layer->forward(in.x_btd, ContextOf(in))));
  layer->train();
  at::manual_seed(1);
  const at::Tensor shaken = layer->forward(in.x_btd, ContextOf(in)), again = layer->forward(in.x_btd, ContextOf(in));
  EXPECT_FALSE(at::equal(shaken, again));
  EXPECT_FALSE(at::equal(shaken, calm));
  // The gates move by at most a few per cent, and what the experts are given does not move at all.
  const at::Tensor before = calm - in.x_btd, after = shaken - in.x_btd;
  const at::Tensor ratio_bt = (after * before).sum(-1) / before.square().sum(-1);
  EXPECT_LE((ratio_bt - 1).abs().max().item<double>(), 0.1);
  EXPECT_LE((after - before * ratio_bt.unsqueeze(-1)).abs().max().item<double>(), 1e-12);
}

// Everything that is trained on, along a random direction, in training mode with equal draws.
TEST(SwitchExperts, GradientIsTheSlopeOfOutputAndBalance) {
  const auto layer = Layer(0.2);
  layer->train();
  Input in = LayerInput();
  in.x_btd.requires_grad_(true);
  const at::Tensor weights = at::sin(at::arange(1, in.x_btd.numel() + 1, at::kDouble)).view(in.x_btd.sizes());
  const auto objective = [&] {
    BeginRows(3, 1, 0, in.x_btd.size(0));
    SideTerms side;
    const at::Tensor y = layer->forward(in.x_btd, ContextOf(in, &side));
    return (y * weights).sum() + 50 * side.auxiliary;
  };
  objective().backward();
  at::NoGradGuard no_grad;
  std::vector<at::Tensor> leaves = layer->parameters();
  leaves.push_back(in.x_btd);
  at::manual_seed(4);
  for (const at::Tensor& leaf : leaves) {  // one at a time: a small gradient is not hidden by a large one
    ASSERT_TRUE(leaf.grad().defined());
    const at::Tensor direction = at::randn_like(leaf);
    const double slope = (direction * leaf.grad()).sum().item<double>();
    constexpr double kStep = 1e-6;
    leaf.add_(direction, kStep);
    const double above = objective().item<double>();
    leaf.sub_(direction, 2 * kStep);
    const double below = objective().item<double>();
    leaf.add_(direction, kStep);
    EXPECT_NEAR((above - below) / (2 * kStep), slope, 1e-6 * std::max(1.0, std::abs(slope))) << leaf.sizes();
  }
}

// An expert that served a token learns from it, every other stays as it is.
TEST(SwitchExperts, WhoGotATokenGetsAGradient) {
  const auto layer = Layer();
  auto weights = layer->named_parameters();
  at::manual_seed(9);
  const Input in{at::randn({1, 3, kModel}, at::kDouble), at::ones({1, 3}, at::kBool)};
  const at::Tensor chosen = at::linear(NormedInputs(in.x_btd[0]), weights[kRouter]).argmax(1);
  layer->forward(in.x_btd, ContextOf(in)).square().sum().backward();
  int64_t idle = 0;
  for (int64_t e = 0; e < kExperts; ++e) {
    const bool served = (chosen == e).any().item<bool>();
    idle += !served;
    for (const std::string& name : {kWi, kWo}) {
      const at::Tensor gradient = weights[name].grad()[e];
      EXPECT_TRUE(gradient.isfinite().all().item<bool>()) << name << ' ' << e;
      EXPECT_EQ(gradient.abs().max().item<double>() > 0, served) << name << ' ' << e;
    }
  }
  EXPECT_GE(idle, 2);
}

TEST(SwitchExperts, BalanceLossIsLeastWhereTokensAreSpreadEvenly) {
  at::NoGradGuard no_grad;
  const auto layer = Layer();
  auto weights = layer->named_parameters();
  Input in{at::zeros({1, kExperts, kModel}, at::kDouble), at::ones({1, kExperts}, at::kBool)};
  for (int64_t t = 0; t < kExperts; ++t) in.x_btd[0][t][t] = 1;
  const auto balance = [&] {
    SideTerms side;
    layer->forward(in.x_btd, ContextOf(in, &side));
    return side.auxiliary.item<double>();
  };
  weights[kRouter].zero_();
  weights[kRouter].fill_diagonal_(4);  // token t wants expert t
  EXPECT_NEAR(balance(), 1e-2, 1e-9);
  weights[kRouter].zero_();
  weights[kRouter][0].fill_(4);  // all want the first
  EXPECT_GT(balance(), 3.5e-2);
}

ModelSpec SwitchSpec(const common::Json& given = nullptr, arch::Lengths lengths = {512, 114}) {
  ModelSpec spec = ModelCase{"switch", given}.Spec({8, 4, 16, 24, 2, 5, 50});
  spec.lengths = lengths;
  return spec;
}

TEST(SwitchModel, CapacityIsThatOfTheConfiguredLength) {
  const std::pair<int64_t, int64_t> rows[] = {{512, 19}, {114, 4},   {128, 4}, {134, 5},
                                              {133, 4},  {1024, 38}, {1, 4},   {80, 4}};
  for (const auto& [length, capacity] : rows) EXPECT_EQ(arch::SwitchCapacity(length), capacity) << length;
}

// Equal weights and tokens, and only the recipe's lengths differ: 19 slots against 4 for twelve equal tokens.
TEST(SwitchModel, ConfiguredLengthsDecideWhatIsDroppedAndPaddingDoesNot) {
  at::NoGradGuard no_grad;
  const at::Tensor inputs = at::full({1, 12}, 7, at::kLong), padded = at::constant_pad_nd(inputs, {0, 400}, 0);
  const auto encode = [](arch::Lengths lengths, const at::Tensor& ids) {
    const auto model = MakeModel(SwitchSpec(nullptr, lengths), 3);
    model->eval();
    return model->Encode(ids).slice(1, 0, 12).contiguous();
  };
  EXPECT_FALSE(at::allclose(encode({512, 114}, inputs), encode({64, 114}, inputs)));
  EXPECT_TRUE(at::equal(encode({512, 114}, inputs), encode({512, 64}, inputs)));
  for (int64_t length : {512, 64})
    EXPECT_LE((encode({length, 114}, inputs) - encode({length, 114}, padded)).abs().max().item<double>(), 1e-5);
}

TEST(SwitchModel, ExpertsStandWhereThePlacementSays) {
  const std::vector<std::pair<const char*, std::vector<int64_t>>> rows{
      {"every_4th", {4, 8}}, {"huggingface", {2, 6}}, {"switch_base", {2, 4, 6, 8}}};
  for (const auto& [placement, layers] : rows) {
    const auto names = MakeModel(SwitchSpec({{"placement", placement}}), 0)->named_parameters();
    for (int64_t layer = 1; layer <= 8; ++layer) {
      const std::string mlp = "encoder.block." + std::to_string(layer - 1) + ".layer.1.mlp";
      const bool sparse = std::ranges::count(layers, layer) > 0;
      EXPECT_EQ(names.contains(mlp + ".router.classifier.weight"), sparse) << placement << layer;
      EXPECT_EQ(names.contains(mlp + ".experts.wi.weight"), sparse) << placement << layer;
      EXPECT_EQ(names.contains(mlp + ".wi.weight"), !sparse) << placement << layer;
    }
  }
  EXPECT_TRUE(MakeModel(SwitchSpec(), 0)->named_parameters().contains("decoder.block.3.layer.2.mlp.experts.wo.weight"));
}

TEST(SwitchModel, SideTermsAreNoPartOfTheLikelihoodAndAddUpOverMicroBatches) {
  const auto model = MakeModel(SwitchSpec(), 5);
  model->eval();
  const Batch batch{Ids({5, 6, 7, 8, 9, 9, 9, 9, 9, 9, 9, 0}, 2), Ids({11, 12, 13, 0, 0, 14, 15, 16, 17, 18}, 2)};
  const auto part = [&](int64_t row) {
    return model->ComputeLoss({batch.inputs_bs.slice(0, row, row + 1), batch.targets_bt.slice(0, row, row + 1)});
  };
  const Loss whole = model->ComputeLoss(batch), first = part(0), second = part(1);
  EXPECT_NEAR(whole.nll_sum.item<double>(), model->TokenNll(batch).sum().item<double>(), 1e-4);
  EXPECT_GT(whole.side.auxiliary.item<double>(), 0);
  EXPECT_NEAR(whole.side.auxiliary.item<double>(),
              first.side.auxiliary.item<double>() + second.side.auxiliary.item<double>(), 1e-6);
  const auto dropped = [](const Loss& loss) { return loss.side.means.at("dropped_fraction"); };
  EXPECT_EQ(dropped(whole).sum.item<int64_t>(),
            dropped(first).sum.item<int64_t>() + dropped(second).sum.item<int64_t>());
  EXPECT_EQ(dropped(whole).count.item<int64_t>(), 2 * 11 + 8)
      << "tokens of two sparse encoder layers and one decoder's";
  // A row's padding, which depends on its batch, changes nothing of its own terms.
  const Loss alone =
      model->ComputeLoss({batch.inputs_bs.slice(0, 0, 1), batch.targets_bt.slice(0, 0, 1).slice(1, 0, 3)});
  EXPECT_NEAR(alone.side.auxiliary.item<double>(), first.side.auxiliary.item<double>(), 1e-7);
  EXPECT_TRUE(alone.nll_sum.requires_grad() && alone.side.auxiliary.requires_grad());
}

// Tokens beyond an expert's capacity, in decoding too: twenty equal tokens, four slots.
TEST(SwitchModel, DecodingDropsWhatDecodeDrops) {
  const auto model = MakeModel(SwitchSpec(nullptr, {64, 64}), 5);
  model->eval();
  at::NoGradGuard no_grad;
  const at::Tensor inputs = Ids({5, 6, 7, 8}, 1), next = at::full({1, 20}, 7, at::kLong);
  next[0][0] = 0;
  next[0][6] = 0;  // a model may choose padding: served by nobody, here and there
  const at::Tensor encoded = model->Encode(inputs), whole = model->Decode(encoded, inputs, next);
  const auto roomy = MakeModel(SwitchSpec(nullptr, {64, 1024}), 5);
  roomy->eval();
  EXPECT_FALSE(at::allclose(whole, roomy->Decode(encoded, inputs, next))) << "nothing was dropped";
  const auto state = model->StartDecoding(encoded, inputs);
  for (int64_t t = 0; t < 20; ++t)
    EXPECT_LE((model->DecodeNext(*state, next.select(1, t)) - whole.select(1, t)).abs().max().item<double>(), 1e-4)
        << t;
}

TEST(SwitchModel, ExpertsTravelOneByOneUnderHuggingFaceNames) {
  std::map<std::string, at::Tensor> weights;
  for (const auto& item : MakeModel(SwitchSpec(), 5)->named_parameters()) weights[item.key()] = item.value().detach();
  auto apart = SplitExperts(weights);
  EXPECT_EQ(apart.size(), weights.size() + 3 * 2 * (arch::kSwitchExperts - 1));
  EXPECT_EQ(apart.at("encoder.block.3.layer.1.mlp.experts.expert_31.wi.weight").sizes(), at::IntArrayRef({24, 16}));
  EXPECT_EQ(apart.at("decoder.block.3.layer.2.mlp.experts.expert_0.wo.weight").sizes(), at::IntArrayRef({16, 24}));
  const auto back = StackExperts(apart);
  ASSERT_EQ(back.size(), weights.size());
  for (const auto& [name, tensor] : weights) EXPECT_TRUE(at::equal(tensor, back.at(name))) << name;
  apart.erase("encoder.block.3.layer.1.mlp.experts.expert_7.wi.weight");
  EXPECT_THROW(StackExperts(apart), std::invalid_argument);
}

TEST(SwitchModel, OneExpertPerTokenCountsAsActive) {
  const arch::Shape base = *arch::FindSize("base");
  const common::Json options = *arch::CompleteOptions(arch::Switch(), nullptr);
  const arch::ParameterCount count = arch::Switch().CountParameters(base, options);
  const int64_t sparse_layers = 6, expert = 2 * base.d_model * base.d_ff;
  EXPECT_EQ(count.total - count.active, sparse_layers * 31 * expert);
  const arch::Architecture& plain = **arch::FindArchitecture("transformer");
  EXPECT_EQ(count.active - plain.CountParameters(base, common::Json::object()).total,
            sparse_layers * 32 * base.d_model);
  // 19 slots for 512 tokens and 4 for 114, of each expert.
  const arch::Lengths n{512, 114};
  const int64_t slots = 3 * (32 * 19 - 512 + 32 * 4 - 114), routed = 3 * (512 + 114);
  const arch::FlopCount mine = arch::Switch().CountFlops(base, options, n),
                        backbone = plain.CountFlops(base, common::Json::object(), n);
  EXPECT_EQ(mine.forward - backbone.forward, 2 * (slots * expert + routed * 32 * base.d_model));
  const double dispatch = 2.0 * 3 * base.d_model * (512 * 32 * 19 + 114 * 32 * 4);
  EXPECT_DOUBLE_EQ(mine.mtf_multiply_adds - backbone.mtf_multiply_adds,
                   128 * (static_cast<double>((mine.forward - backbone.forward) / 2) + dispatch));
}

TEST(SwitchModel, RefusesStacksWithoutExperts) {
  const auto options = [](const char* placement) {
    return *arch::CompleteOptions(arch::Switch(), {{"placement", placement}});
  };
  const auto check = [&](int64_t encoder, int64_t decoder, const char* placement) {
    return arch::Switch().CheckShape({encoder, decoder, 16, 24, 2, 5, 50}, options(placement));
  };
  EXPECT_TRUE(check(4, 4, "every_4th").ok());
  EXPECT_TRUE(check(2, 2, "huggingface").ok());
  const auto refused = check(4, 3, "every_4th");
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("at least 4 layers"), std::string::npos) << refused.error().message;
  EXPECT_FALSE(check(1, 4, "switch_base").ok());
}

}  // namespace
}  // namespace allometry::trainer
