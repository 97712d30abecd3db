// Hand-written backward passes against differences of their forward passes in float64, and the CPU loops against ATen.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>

#include <functional>

#include "tests/unit/models/model_cases.h"
#include "worker/trainer/layers/attention.h"
#include "worker/trainer/layers/cross_entropy.h"
#include "worker/trainer/layers/dynamic_convolution.h"
#include "worker/trainer/layers/evolved_layers.h"
#include "worker/trainer/layers/feed_forward.h"
#include "worker/trainer/layers/gru.h"
#include "worker/trainer/layers/halting.h"
#include "worker/trainer/layers/light_convolution.h"
#include "worker/trainer/layers/linear_attention.h"
#include "worker/trainer/layers/mixture_cross_entropy.h"
#include "worker/trainer/layers/ops.h"
#include "worker/trainer/layers/pooling_attention.h"
#include "worker/trainer/layers/position_bias.h"
#include "worker/trainer/layers/row_random.h"
#include "worker/trainer/layers/token_mixing.h"

namespace allometry::trainer {
namespace {

using Function = std::function<at::Tensor()>;  // a scalar; dropout masks are equal in every call

double Evaluate(const Function& f) {
  BeginRows(5, 1, 0, 1);
  return f().item<double>();
}

at::Tensor Leaf(at::IntArrayRef sizes) { return at::randn(sizes, at::kDouble).requires_grad_(true); }

// A fixed weighting makes a scalar of any output, so that no error cancels.
at::Tensor Weighted(const at::Tensor& y) {
  const at::Tensor weights = at::sin(at::arange(1, y.numel() + 1, y.options().requires_grad(false)) * 1.7);
  return (y * weights.view(y.sizes())).sum();
}

void ExpectGradients(const Function& f, const std::vector<at::Tensor>& inputs, const std::string& name,
                     double step = 1e-5) {
  BeginRows(5, 1, 0, 1);
  for (const at::Tensor& input : inputs) input.mutable_grad() = at::Tensor();
  f().backward();
  for (size_t i = 0; i < inputs.size(); ++i) {
    ASSERT_TRUE(inputs[i].grad().defined()) << name << " input " << i;
    double* value = inputs[i].data_ptr<double>();
    const at::Tensor gradient = inputs[i].grad().contiguous();
    for (int64_t j = 0; j < inputs[i].numel(); ++j) {
      const double before = value[j];
      value[j] = before + step;
      const double above = Evaluate(f);
      value[j] = before - step;
      const double below = Evaluate(f);
      value[j] = before;
      const double numeric = (above - below) / (2 * step);
      ASSERT_NEAR(gradient.data_ptr<double>()[j], numeric, 1e-6 * std::max(1.0, std::abs(numeric)))
          << name << " input " << i << " element " << j;
    }
  }
}

// Gradients in the CPU's loops, in ATen's operators, and with dropout.
void ExpectSublayerGradients(const std::function<std::shared_ptr<Sublayer>(double dropout)>& make,
                             const StackContext& context, std::vector<at::Tensor> extra, const std::string& name,
                             double step = 1e-5) {
  for (double dropout : {0.0, 0.3})
    for (bool aten : {false, true}) {
      at::manual_seed(1);
      const auto layer = make(dropout);
      layer->Initialise(at::globalContext().defaultGenerator(at::kCPU));
      layer->to(at::kDouble);
      std::vector<at::Tensor> inputs = extra;
      for (const at::Tensor& p : layer->parameters()) {
        at::NoGradGuard no_grad;
        p.add_(at::randn_like(p), 0.1);
        inputs.push_back(p);
      }
      const at::Tensor x = Leaf({2, 5, 12});
      inputs.push_back(x);
      const Function f = [&] {
        StackContext own = context;
        if (const at::Tensor table = layer->PositionTable(); table.defined() && !own.positions.bias_hqk.defined())
          own.positions.bias_hqk = PositionBias(table, 5, /*causal=*/true);
        return Weighted(layer->forward(x, own));
      };
      if (aten) {
        ops::ForceAten force;
        ExpectGradients(f, inputs, name + " aten", step);
      } else {
        ExpectGradients(f, inputs, name, step);
      }
    }
}

const arch::Shape kShape{1, 1, 12, 20, 2, 3, 30};

TEST(LayerGradients, SelfAttention) {
  StackContext context;
  context.mask_bs = PaddingMask(Ids({3, 4, 5, 6, 7, 3, 4, 5, 0, 0}, 2), at::kDouble);
  ExpectSublayerGradients([](double p) { return std::make_shared<AttentionSublayer>(kShape, false, true, p); }, context,
                          {}, "self");
}

TEST(LayerGradients, CrossAttention) {
  StackContext context;
  context.memory_bsd = Leaf({2, 4, 12});
  context.memory_mask_bs = PaddingMask(Ids({3, 4, 5, 6, 3, 4, 0, 0}, 2), at::kDouble);
  ExpectSublayerGradients([](double p) { return std::make_shared<AttentionSublayer>(kShape, true, false, p); }, context,
                          {context.memory_bsd}, "cross");
}

TEST(LayerGradients, FeedForward) {
  ExpectSublayerGradients([](double p) { return std::make_shared<FeedForwardSublayer>(12, 20, p); }, {}, {}, "relu");
}

TEST(LayerGradients, GatedFeedForward) {
  for (Activation act : {Activation::kSigmoid, Activation::kGelu, Activation::kSilu, Activation::kRelu})
    ExpectSublayerGradients([&](double p) { return std::make_shared<GatedFeedForwardSublayer>(12, 20, act, p); }, {},
                            {}, "gate " + std::to_string(static_cast<int>(act)));
}

TEST(LayerGradients, LightConvolution) {
  StackContext context;
  context.keep_bs1 = (Ids({3, 4, 5, 6, 7, 3, 4, 5, 0, 0}, 2) != 0).to(at::kDouble).unsqueeze(-1);
  for (bool causal : {false, true})
    ExpectSublayerGradients(
        [&](double p) { return std::make_shared<LightConvolutionSublayer>(12, causal ? 12 : 3, causal, p); }, context,
        {}, "convolution");
}

TEST(LayerGradients, EvolvedConvolutions) {
  StackContext context;
  context.keep_bs1 = (Ids({3, 4, 5, 6, 7, 3, 4, 5, 0, 0}, 2) != 0).to(at::kDouble).unsqueeze(-1);
  ExpectSublayerGradients([](double p) { return std::make_shared<EncoderConvolutionSublayer>(12, p); }, context, {},
                          "encoder convolution");
  ExpectSublayerGradients([](double p) { return std::make_shared<DecoderConvolutionSublayer>(12, p); }, {}, {},
                          "decoder convolution");
}

TEST(LayerGradients, DualAttention) {
  StackContext context;
  context.memory_bsd = Leaf({2, 4, 12});
  context.memory_mask_bs = PaddingMask(Ids({3, 4, 5, 6, 3, 4, 0, 0}, 2), at::kDouble);
  context.wide_positions.bias_hqk = Leaf({3, 5, 5});
  ExpectSublayerGradients([](double p) { return std::make_shared<DualAttentionSublayer>(kShape, 3, p); }, context,
                          {context.memory_bsd, context.wide_positions.bias_hqk}, "dual");
}

TEST(LayerGradients, GruSublayers) {
  StackContext context;
  context.mask_bs = PaddingMask(Ids({3, 4, 5, 6, 7, 3, 4, 5, 0, 0}, 2), at::kDouble);
  context.positions.bias_hqk = Leaf({2, 5, 5});
  ExpectSublayerGradients([](double) { return std::make_shared<GruAttentionSublayer>(kShape, false); }, context,
                          {context.positions.bias_hqk}, "gated self");
  ExpectSublayerGradients([](double) { return std::make_shared<GruFeedForwardSublayer>(12, 20); }, {}, {},
                          "gated relu");
  StackContext decoder;
  decoder.memory_bsd = Leaf({2, 4, 12});
  decoder.memory_mask_bs = PaddingMask(Ids({3, 4, 5, 6, 3, 4, 0, 0}, 2), at::kDouble);
  ExpectSublayerGradients([](double) { return std::make_shared<GruAttentionSublayer>(kShape, true); }, decoder,
                          {decoder.memory_bsd}, "gated cross");
}

TEST(LayerGradients, LinearAttention) {
  const auto features = std::make_shared<RandomFeatures>(8, kShape.d_kv);
  StackContext context;
  context.keep_bs1 = (Ids({3, 4, 5, 6, 7, 3, 4, 5, 0, 0}, 2) != 0).to(at::kDouble).unsqueeze(-1);
  const std::pair<FeatureKernel, bool> cases[] = {
      {FeatureKernel::kSoftmax, false}, {FeatureKernel::kSoftmax, true}, {FeatureKernel::kRelu, true}};
  for (const auto& [kernel, causal] : cases) {
    LinearAttentionSublayer::Options options;
    options.kernel = kernel;
    options.causal = causal;
    options.owns_features = true;
    ExpectSublayerGradients(
        [&](double p) {
          options.dropout = p;
          return std::make_shared<LinearAttentionSublayer>(kShape, features, options);
        },
        context, {}, "linear attention", /*step=*/2e-6);  // exponentials of exponents that bend quickly
  }
}

// More positions than one chunk has, where sums are carried on.
TEST(LayerGradients, CausalLinearAttentionOverChunks) {
  const at::Tensor q = at::rand({1, 67, 2}, at::kDouble).requires_grad_(true),
                   k = at::rand({1, 67, 2}, at::kDouble).requires_grad_(true), v = Leaf({1, 67, 2});
  ExpectGradients([&] { return Weighted(CausalLinearAttention(q, k, v)); }, {q, k, v}, "chunks");
}

// Six positions to three, in both forms; the second row ends within a pair.
TEST(LayerGradients, PoolingAttention) {
  const at::Tensor ids = Ids({3, 4, 5, 6, 7, 8, 3, 4, 5, 0, 0, 0}, 2);
  for (const PoolWhat pool : {PoolWhat::kQuery, PoolWhat::kAfterAttention}) {
    at::manual_seed(1);
    PoolingAttentionSublayer layer(kShape, pool, /*dropout=*/0.3);
    layer.Initialise(at::globalContext().defaultGenerator(at::kCPU));
    layer.to(at::kDouble);
    StackContext context;
    context.keep_bs1 = (ids != 0).to(at::kDouble).unsqueeze(-1);
    context.mask_bs = PaddingMask(ids, at::kDouble);
    context.positions.bias_hqk = Leaf({2, pool == PoolWhat::kQuery ? 3 : 6, 6});
    std::vector<at::Tensor> inputs = layer.parameters();
    inputs.push_back(context.positions.bias_hqk);
    inputs.push_back(Leaf({2, 6, 12}));
    ExpectGradients([&] { return Weighted(layer.forward(inputs.back(), context)); }, inputs, "pooling");
  }
}

// When a position stops is a step function; between its steps the weights of the states have gradients.
TEST(LayerGradients, Halting) {
  at::manual_seed(6);
  const at::Tensor x = Leaf({2, 5, 4}), halt = Leaf({1, 4});
  std::vector<at::Tensor> states{Leaf({2, 5, 4}), Leaf({2, 5, 4}), Leaf({2, 5, 4})};
  at::Tensor steps;
  const auto mean = [&] {
    Halting halting(x);
    at::Tensor seen = x;
    for (size_t step = 0; step < states.size(); ++step) {
      halting.Decide(seen, halt, /*last=*/step + 1 == states.size());
      seen = at::where(halting.running(), states[step], seen);
      halting.Add(seen);
    }
    steps = halting.steps();
    return Weighted(halting.mean_state());
  };
  std::vector<at::Tensor> inputs{x, halt, states[0], states[1], states[2]};
  ExpectGradients(mean, inputs, "halting");
  EXPECT_LT(steps.min().item<double>(), steps.max().item<double>()) << "they all stop at once";
}

TEST(LayerGradients, DynamicConvolution) {
  StackContext context;
  context.keep_bs1 = (Ids({3, 4, 5, 6, 7, 3, 4, 5, 0, 0}, 2) != 0).to(at::kDouble).unsqueeze(-1);
  for (bool causal : {false, true})
    ExpectSublayerGradients(
        [&](double p) { return std::make_shared<DynamicConvolutionSublayer>(12, causal ? 12 : 3, causal, p); }, context,
        {}, "dynamic convolution");
}

TEST(LayerGradients, TokenMixing) {
  StackContext context;
  context.keep_bs1 = (Ids({3, 4, 5, 6, 7, 3, 4, 5, 0, 0}, 2) != 0).to(at::kDouble).unsqueeze(-1);
  for (bool causal : {false, true})
    ExpectSublayerGradients(
        [&](double p) { return std::make_shared<TokenMixingSublayer>(12, 4, causal ? 5 : 7, causal, p); }, context, {},
        "token mixing");
}

// Chunks of three tokens and a rest; one softmax alone is the plain cross-entropy.
TEST(LayerGradients, MixtureCrossEntropy) {
  const at::Tensor hidden = Leaf({11, 3, 6}), prior = Leaf({11, 3}), table = Leaf({21, 6});
  const at::Tensor targets = at::tensor({4, 0, 20, 1, 7, 0, 19, 3, 3, 0, 2}, at::kLong);
  ExpectGradients(
      [&] {
        return MixtureCrossEntropySum({hidden, LogPrior(prior), table}, targets);
      },
      {hidden, prior, table}, "mixture");
  const at::Tensor p = (at::softmax(prior, 1).unsqueeze(-1) * at::softmax(at::matmul(hidden, table.t()), -1)).sum(1);
  const at::Tensor reference = at::nll_loss(p.log(), targets, {}, at::Reduction::Sum, 0);
  const Mixture mixture{hidden, LogPrior(prior), table};
  EXPECT_NEAR(MixtureCrossEntropySum(mixture, targets).item<double>(), reference.item<double>(), 1e-10);
  EXPECT_NEAR(MixtureCrossEntropyRows(mixture, targets).sum().item<double>(), reference.item<double>(), 1e-10);
  EXPECT_LE((MixtureLogProbabilities(mixture) - p.log()).abs().max().item<double>(), 1e-10);
  const Mixture single{hidden.slice(1, 0, 1), at::zeros({11, 1}, at::kDouble), table};
  EXPECT_NEAR(MixtureCrossEntropySum(single, targets).item<double>(),
              LinearCrossEntropySum(hidden.select(1, 0), table, targets).item<double>(), 1e-10);
}

TEST(LayerGradients, NormAndPositionBias) {
  RmsNorm norm(19);
  norm.to(at::kDouble);
  const at::Tensor x = Leaf({3, 19}), table = Leaf({kRelativeBuckets, 3});
  ExpectGradients([&] { return Weighted(norm.forward(x)); }, {x, norm.weight()}, "norm");
  for (bool causal : {false, true})
    ExpectGradients(
        [&] {
          return Weighted(PositionBias(table, 40, causal).masked_fill(at::ones({40, 40}).triu(1) != 0, 0));
        },
        {table}, "bias");
}

TEST(LayerGradients, CrossEntropy) {
  const at::Tensor hidden = Leaf({7, 6}), table = Leaf({21, 6});
  const at::Tensor targets = at::tensor({4, 0, 20, 1, 7, 0, 19}, at::kLong);
  ExpectGradients([&] { return LinearCrossEntropySum(hidden, table, targets); }, {hidden, table}, "cross-entropy");
  const at::Tensor reference = at::cross_entropy_loss(at::linear(hidden, table), targets, {}, at::Reduction::Sum, 0);
  EXPECT_NEAR(LinearCrossEntropySum(hidden, table, targets).item<double>(), reference.item<double>(), 1e-10);
  const at::Tensor rows = LinearCrossEntropyRows(hidden, table, targets);
  EXPECT_NEAR(rows.sum().item<double>(), reference.item<double>(), 1e-10);
  EXPECT_EQ(rows[1].item<double>(), 0);
}

// Against log-sum-exp written out, and its gradient against differences; without z it is the likelihood to the bit.
TEST(LayerGradients, ZLoss) {
  at::manual_seed(8);
  const at::Tensor hidden = Leaf({7, 6}), table = Leaf({21, 6});
  const at::Tensor targets = at::tensor({4, 0, 20, 1, 7, 0, 19}, at::kLong);
  constexpr double kZ = 0.03;
  const auto objective = [&] { return LinearCrossEntropyWithZLoss(hidden, table, targets, kZ).objective_sum; };
  ExpectGradients([&] { return objective() * 0.7; }, {hidden, table}, "z-loss");
  const at::Tensor log_z = at::logsumexp(at::linear(hidden, table), {1}).masked_select(targets != 0);
  const at::Tensor nll = LinearCrossEntropySum(hidden, table, targets);
  const ZLoss loss = LinearCrossEntropyWithZLoss(hidden, table, targets, kZ);
  EXPECT_NEAR(loss.objective_sum.item<double>(), (nll + kZ * log_z.square().sum()).item<double>(), 1e-10);
  EXPECT_EQ(loss.nll_sum.item<double>(), nll.item<double>());
  EXPECT_FALSE(loss.nll_sum.requires_grad());
  EXPECT_EQ(LinearCrossEntropyWithZLoss(hidden, table, targets, 0).objective_sum.item<double>(), nll.item<double>());
}

TEST(LayerGradients, MixtureZLoss) {
  at::manual_seed(9);
  const at::Tensor hidden = Leaf({7, 3, 6}), prior = Leaf({7, 3}), table = Leaf({21, 6});
  const at::Tensor targets = at::tensor({4, 0, 20, 1, 7, 0, 19}, at::kLong);
  constexpr double kZ = 0.03;
  const auto loss = [&](double z) {
    return MixtureCrossEntropyWithZLoss({hidden, LogPrior(prior), table}, targets, z);
  };
  ExpectGradients([&] { return loss(kZ).objective_sum * 0.7; }, {hidden, prior, table}, "mixture z-loss");
  const at::Tensor log_z = at::logsumexp(at::linear(hidden, table), {2});
  const at::Tensor cost = (at::softmax(prior, 1) * log_z.square()).sum(1).masked_select(targets != 0).sum() * kZ;
  const double nll = loss(0).objective_sum.item<double>();
  EXPECT_NEAR(loss(kZ).objective_sum.item<double>(), nll + cost.item<double>(), 1e-10);
  EXPECT_EQ(loss(kZ).nll_sum.item<double>(), nll);
}

TEST(LinearCrossEntropy, RefusesTargetsOutsideTheVocabulary) {
  EXPECT_ANY_THROW(LinearCrossEntropyRows(at::randn({1, 4}), at::randn({5, 4}), at::tensor({5}, at::kLong)));
}

// kernel[j] of every channel, offsets first, first + 1, ...; evaluated one product at a time.
TEST(DepthwiseConvolution, AgainstItsDefinitionInFloat64) {
  at::manual_seed(3);
  for (int64_t first : {-4, -8, 0, 2}) {
    const at::Tensor x = at::randn({2, 11, 21}), kernel = at::randn({9, 21});
    const at::Tensor y = DepthwiseConvolution(x, kernel, first);
    for (int64_t b = 0; b < 2; ++b)
      for (int64_t t = 0; t < 11; ++t)
        for (int64_t c = 0; c < 21; ++c) {
          double sum = 0;
          for (int64_t j = 0; j < 9; ++j)
            if (const int64_t at = t + first + j; at >= 0 && at < 11)
              sum += kernel[j][c].item<double>() * x[b][at][c].item<double>();
          ASSERT_NEAR(y[b][t][c].item<double>(), sum, 1e-5) << first << ' ' << t << ' ' << c;
        }
  }
}

// Relative to the largest value: a bfloat16 has eight bits.
double Tolerance(at::ScalarType type) { return type == at::kDouble ? 1e-12 : type == at::kFloat ? 2e-6 : 1.6e-2; }

void ExpectNear(const at::Tensor& a, const at::Tensor& b, at::ScalarType type, const char* what, double tolerance) {
  const at::Tensor a64 = a.to(at::kDouble), b64 = b.to(at::kDouble);
  const double scale = std::max(1.0, b64.abs().max().item<double>());
  EXPECT_LE((a64 - b64).abs().max().item<double>(), tolerance * scale) << what << ' ' << type;
}

TEST(CpuLoops, AgreeWithAten) {
  for (at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16})
    for (int64_t n : {1, 16, 37, 5000}) {
      at::manual_seed(n);
      const at::ScalarType sum = ops::SumType(type);
      const at::Tensor scores = at::randn({6, 3, n}).mul_(3).to(type), bias = at::randn({2, 3, n}).to(sum);
      const at::Tensor mask =
          PaddingMask(at::randint(0, 4, {3, n}, at::kLong).index_fill_(1, at::zeros({1}, at::kLong), 1), type);
      const at::Tensor dp = at::randn({6, 3, n}).to(type), x = at::randn({4, n}).to(type), w = at::randn({n}).to(type);
      const at::Tensor targets = at::tensor({n - 1, int64_t{0}, n / 2, int64_t{0}}, at::kLong);
      const at::Tensor signal = x.view({2, 2, n}), taps = at::randn({2, 2, 9, n}).to(type);
      const auto run = [&] {
        std::vector<std::pair<const char*, at::Tensor>> out;
        at::Tensor p = scores.clone(), ds = dp.clone(), logits = x.clone();
        ops::SoftmaxForward(p, bias, mask, 2);
        out.emplace_back("probabilities", p);
        out.emplace_back("bias gradient", ops::SoftmaxBackward(p, ds, 2, true));
        out.emplace_back("score gradient", ds);
        out.emplace_back("likelihood", ops::CrossEntropy(logits, targets, true));
        out.emplace_back("logit gradient", logits);
        const ops::Normed normed = ops::NormForward(x, w);
        out.emplace_back("norm", normed.y_rd);
        const ops::NormGradients g = ops::NormBackward(logits, x, w, normed.scale_r, x);
        out.emplace_back("norm gradient", g.dx_rd);
        out.emplace_back("norm weight gradient", g.dweight_d);
        for (int act = 0; act < 4; ++act) {
          out.emplace_back("gate", ops::GateForward(static_cast<Activation>(act), x, x.flip(0).contiguous()));
          at::Tensor du = at::empty_like(x), dv = at::empty_like(x);
          ops::GateBackward(static_cast<Activation>(act), x, x.flip(0).contiguous(), x, du, dv);
          out.emplace_back("du", du);
          out.emplace_back("dv", dv);
        }
        const at::Tensor mixed = ops::DynamicConvolve(signal, taps, -8);
        out.emplace_back("dynamic convolution", mixed);
        const auto dynamic = ops::DynamicConvolveBackward(signal, taps, mixed, signal, -8);
        out.emplace_back("dynamic convolution's input gradient", dynamic.dx_btc);
        out.emplace_back("dynamic convolution's kernel gradient", dynamic.dlogits_btwk);
        return out;
      };
      const auto loops = run();
      ops::ForceAten force;
      const auto aten = run();
      for (size_t i = 0; i < loops.size(); ++i)
        ExpectNear(loops[i].second, aten[i].second, type, loops[i].first, Tolerance(type));
    }
}

// Sums over rows are divided among threads: large enough for that, odd enough to leave rests. In float32 two orders of
// a sum of 1505 squares differ by up to some sqrt(1505) roundings, 2.3e-6 of it; a row left out would be 6.6e-4.
TEST(CpuLoops, AgreeForEveryNumberOfThreads) {
  at::manual_seed(4);
  for (at::ScalarType type : {at::kDouble, at::kFloat}) {
    const auto draw = [&](at::IntArrayRef sizes) { return at::randn(sizes, type); };
    const at::Tensor x = draw({1031, 129}), dy = draw({1031, 129}), w = draw({129});
    const at::Tensor signal = draw({5, 301, 65}), kernel = draw({9, 65}), taps = draw({5, 301, 9, 65});
    const auto run = [&](int threads) {
      at::set_num_threads(threads);
      const ops::Normed normed = ops::NormForward(x, w);
      const ops::NormGradients g = ops::NormBackward(dy, x, w, normed.scale_r, {});
      const auto dynamic = ops::DynamicConvolveBackward(signal, taps, signal, signal, -4);
      std::vector<std::pair<const char*, at::Tensor>> out{
          {"norm", normed.y_rd},
          {"norm's input gradient", g.dx_rd},
          {"norm's weight gradient", g.dweight_d},
          {"convolution", ops::Convolve(signal, kernel, -4)},
          {"convolution's kernel gradient", ops::ConvolveKernelGradient(signal, signal, 9, -4)},
          {"dynamic convolution", ops::DynamicConvolve(signal, taps, -4)},
          {"dynamic convolution's input gradient", dynamic.dx_btc},
          {"dynamic convolution's kernel gradient", dynamic.dlogits_btwk}};
      at::set_num_threads(1);
      return out;
    };
    const auto one = run(1), three = run(3);
    for (size_t i = 0; i < one.size(); ++i)
      ExpectNear(three[i].second, one[i].second, type, one[i].first, type == at::kDouble ? 1e-12 : 2e-5);
  }
}

TEST(CpuLoops, CarryNotANumberOnSoThatDivergenceIsSeen) {
  for (at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    at::Tensor logits = at::zeros({1, 40}, type);
    logits[0][33] = std::nan("");
    EXPECT_TRUE(std::isnan(ops::CrossEntropy(logits, at::tensor({3}, at::kLong), true)[0].item<double>()));
    EXPECT_TRUE(ops::NormForward(logits, at::ones({40}, type)).y_rd.isnan()[0][33].item<bool>());
  }
}

TEST(CpuLoops, SoftmaxRefusesABiasOrAMaskOfAnotherLength) {
  at::Tensor scores = at::zeros({4, 3, 5});  // two examples of two heads
  EXPECT_NO_THROW(ops::SoftmaxForward(scores, at::zeros({2, 3, 5}), at::zeros({2, 5}), 2));
  EXPECT_ANY_THROW(ops::SoftmaxForward(scores, at::zeros({2, 3, 4}), {}, 2));
  EXPECT_ANY_THROW(ops::SoftmaxForward(scores, at::zeros({1, 3, 5}), {}, 2));
  EXPECT_ANY_THROW(ops::SoftmaxForward(scores, {}, at::zeros({2, 4}), 2));
  EXPECT_ANY_THROW(ops::SoftmaxForward(scores, {}, at::zeros({4, 5}), 2));
}

TEST(CpuLoops, SoftmaxOfForbiddenKeysIsExactlyZero) {
  at::Tensor p = at::zeros({1, 1, 20});
  at::Tensor bias = at::zeros({1, 1, 20});
  bias.slice(2, 15).fill_(-std::numeric_limits<float>::infinity());
  ops::SoftmaxForward(
      p, bias, PaddingMask(Ids({0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0}, 1), at::kFloat), 1);
  EXPECT_EQ(p[0][0][0].item<float>(), 0.0f);
  EXPECT_EQ(p[0][0][15].item<float>(), 0.0f);
  EXPECT_NEAR(p[0][0][7].item<float>(), 1.0f / 14, 1e-6);
}

}  // namespace
}  // namespace allometry::trainer
