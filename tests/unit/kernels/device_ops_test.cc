// The layers' arithmetic by the kernels: ops.h's functions and every architecture's loss and gradients, through the
// emulated kernels on a CPU's tensors, against float64; and through the real ones on a GPU's, where there is one.
#include "worker/trainer/layers/device_ops.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <functional>

#include "arch/performer.h"
#include "tests/unit/kernels/tensor_case.h"
#include "tests/unit/models/model_cases.h"
#include "worker/trainer/layers/cross_entropy.h"
#include "worker/trainer/layers/linear_attention.h"

namespace allometry::trainer {
namespace {

// Threads that wait for one another crawl when a machine is busy; nothing here depends on their number.
class OneThread : public ::testing::Environment {
  void SetUp() override { at::set_num_threads(1); }
};
const ::testing::Environment* const kOneThread = ::testing::AddGlobalTestEnvironment(new OneThread);

class DeviceOps : public TensorKernelTest {};
INSTANTIATE_TEST_SUITE_P(Kernels, DeviceOps, ::testing::Bool(), TensorKernelName);

void ExpectNear(const at::Tensor& got, const at::Tensor& want, double tolerance, const std::string& what) {
  const at::Tensor a = got.to(at::kCPU, at::kDouble), b = want.to(at::kDouble);
  ASSERT_EQ(a.sizes(), b.sizes()) << what;
  if (a.numel() == 0) return;
  const double scale = std::max(0.1, b.abs().max().item<double>());
  EXPECT_LE((a - b).abs().max().item<double>(), tolerance * scale) << what;
}

using Named = std::vector<std::pair<std::string, at::Tensor>>;

// Every function of ops.h on tensors of one type and device.
Named RunOps(const std::function<at::Tensor(const at::Tensor&)>& cast, at::ScalarType sum, int64_t n) {
  at::manual_seed(n);
  const auto draw = [&](at::IntArrayRef sizes) { return cast(at::randn(sizes, at::kFloat)); };
  const auto wide = [&](at::IntArrayRef sizes) { return draw(sizes).to(sum); };
  Named out;
  const at::Tensor x = draw({4, n}), dy = draw({4, n}), w = draw({n}), both = draw({4, 2 * n});
  const ops::Normed normed = ops::NormForward(x, w);
  out.emplace_back("norm", normed.y_rd);
  for (const at::Tensor& residual : {at::Tensor(), dy}) {
    const ops::NormGradients g = ops::NormBackward(dy, x, w, normed.scale_r, residual);
    out.emplace_back("norm's gradient", g.dx_rd);
    out.emplace_back("norm's weight gradient", g.dweight_d);
  }
  at::Tensor p = draw({6, 3, n}), ds = draw({6, 3, n});
  ops::SoftmaxForward(p, wide({2, 3, n}), wide({3, n}), 2);
  out.emplace_back("probabilities", p);
  out.emplace_back("bias gradient", ops::SoftmaxBackward(p, ds, 2, true));
  out.emplace_back("score gradient", ds);
  at::Tensor logits = draw({4, n});
  const at::Tensor targets = at::tensor({n - 1, int64_t{0}, n / 2, int64_t{0}}, at::kLong).to(x.device());
  out.emplace_back("likelihood", ops::CrossEntropy(logits, targets, true));
  out.emplace_back("logit gradient", logits);
  const at::Tensor mask = (draw({4, n}) > 0).to(x.scalar_type()) * 1.25;
  for (const at::Tensor& m : {at::Tensor(), mask}) {
    at::Tensor y = x.clone(), dx = dy.clone();
    ops::ReluForward(y, m);
    out.emplace_back("relu", y);
    ops::ReluBackward(dx, y, m);
    out.emplace_back("relu's gradient", dx);
  }
  for (int act = 0; act < 4; ++act) {
    const auto activation = static_cast<Activation>(act);
    out.emplace_back("gate", ops::GateForward(activation, x, dy));
    out.emplace_back("dropped gate", ops::GateForward(activation, x, dy, mask));
    const at::Tensor du = at::empty_like(x), dv = at::empty_like(x);
    ops::GateBackward(activation, x, dy, w.expand({4, n}).contiguous(), du, dv, mask);
    out.emplace_back("dropped gate's gradient", du);
    out.emplace_back("dropped gate's other gradient", dv);
    const at::Tensor d = at::empty_like(both), u = both.slice(1, 0, n), v = both.slice(1, n);
    out.emplace_back("gate of halves", ops::GateForward(activation, u, v));
    ops::GateBackward(activation, u, v, dy, d.slice(1, 0, n), d.slice(1, n));
    out.emplace_back("gate gradients", d);
  }
  const at::Tensor signal = draw({2, 5, n}), taps = draw({2, 5, 3, n}), kernel = wide({3, n});
  out.emplace_back("convolution", ops::Convolve(signal, kernel, -1));
  out.emplace_back("its input gradient", ops::ConvolveInputGradient(signal, kernel, -1));
  out.emplace_back("its kernel gradient", ops::ConvolveKernelGradient(signal, signal.flip(0).contiguous(), 3, -1));
  for (const at::Tensor& t : {taps, draw({2, 5, 3, 1})}) {
    const at::Tensor y = ops::DynamicConvolve(signal, t, -2);
    out.emplace_back("dynamic convolution", y);
    const auto g = ops::DynamicConvolveBackward(signal, t, y, signal, -2);
    out.emplace_back("its input gradient", g.dx_btc);
    out.emplace_back("its logits' gradient", g.dlogits_btwk);
  }
  return out;
}

TEST_P(DeviceOps, EveryOperation) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
    for (const int64_t n : {1, 16, 37, 520}) {
      const Named want = RunOps([&](const at::Tensor& t) { return t.to(type).to(at::kDouble); }, at::kDouble, n);
      const Named got =
          ByKernels([&] { return RunOps([&](const at::Tensor& t) { return t.to(type).to(device_); }, at::kFloat, n); });
      for (size_t i = 0; i < want.size(); ++i)
        ExpectNear(got[i].second, want[i].second, type == at::kFloat ? 2e-5 : 2e-2,
                   want[i].first + " " + std::to_string(n));
    }
}

// The same masks, bit by bit, of rows of a batch and of experts that are divided; jitter to float32's last digit.
TEST_P(DeviceOps, RandomRowsAreACpus) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
    for (const int64_t inner : {1, 7, 40})
      for (const RowLayout& by :
           {RowLayout{}, RowLayout{.outer = 2, .first = 4, .of = 6},
            RowLayout{.outer = 3, .first = 3, .of = 9, .blocks = 2, .own_block = 1, .block_rows = 5}}) {
        const auto draw = [&](at::Device device) {
          BeginRows(/*seed=*/11, /*step=*/4, /*first_row=*/7, /*rows=*/3);
          const at::TensorOptions options = at::TensorOptions(device).dtype(type);
          return std::vector{DropoutMask({by.outer, by.blocks, 3, inner}, options, 0.3, by).to(at::kCPU),
                             DropoutMask({by.outer, by.blocks, 3, inner}, options, 0.3, by).to(at::kCPU),
                             RandomUniform({3, inner}, options.dtype(at::kFloat), 0.99, 1.01).to(at::kCPU)};
        };
        const auto want = draw(at::kCPU), got = ByKernels([&] { return draw(device_); });
        for (int i : {0, 1}) EXPECT_TRUE(at::equal(got[i], want[i])) << type << " " << inner << " draw " << i;
        EXPECT_LE((got[2] - want[2]).abs().max().item<float>(), 2e-7f) << inner;
      }
}

TEST_P(DeviceOps, LossWithZ) {
  at::manual_seed(3);
  const at::Tensor hidden = at::randn({7, 12}), table = at::randn({50, 12});
  const at::Tensor targets = at::tensor({3, 0, 49, 1, 1, 0, 20}, at::kLong);
  const auto run = [&](at::Device device, at::ScalarType type) {
    const at::Tensor h = hidden.to(device, type).requires_grad_(true), t = table.to(device, type).requires_grad_(true);
    const ZLoss loss = LinearCrossEntropyWithZLoss(h, t, targets.to(device), 1e-2);
    loss.objective_sum.backward();
    return std::vector<at::Tensor>{loss.objective_sum, loss.nll_sum, h.grad(), t.grad()};
  };
  const auto want = run(at::kCPU, at::kDouble), got = ByKernels([&] { return run(device_, at::kFloat); });
  for (size_t i = 0; i < want.size(); ++i) ExpectNear(got[i].detach(), want[i].detach(), 2e-5, std::to_string(i));
}

Batch SmallBatch() {
  return {Ids({5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0}, 2), Ids({11, 12, 13, 14, 15, 16, 17, 18, 0, 0}, 2)};
}

// FAVOR+ over sequences of several chunks, and of which the last is not full.
TEST_P(DeviceOps, CausalLinearAttentionInChunks) {
  const int64_t length = 160, depth = 8, features = 12;
  ASSERT_GT(arch::PerformerChunksOf(length).count, 2);
  at::manual_seed(6);
  const at::Tensor q = at::randn({2, length, depth}), k = at::randn({2, length, depth}),
                   v = at::randn({2, length, depth}), dy = at::randn({2, length, depth}),
                   rows = DrawRandomFeatures(features, depth, at::detail::createCPUGenerator(3));
  for (const FeatureKernel kernel : {FeatureKernel::kSoftmax, FeatureKernel::kRelu}) {
    const auto run = [&](at::Device device, at::ScalarType type) {
      const auto leaf = [&](const at::Tensor& t) { return t.to(device, type).detach().clone().requires_grad_(true); };
      const at::Tensor a = leaf(q), b = leaf(k), c = leaf(v), w = rows.to(device);
      const at::Tensor y = CausalLinearAttention(QueryFeatures(kernel, a, w), KeyFeatures(kernel, b, w), c);
      y.backward(dy.to(device, type));
      return std::vector<at::Tensor>{y.detach(), a.grad(), b.grad(), c.grad()};
    };
    const auto want = run(at::kCPU, at::kDouble), got = ByKernels([&] { return run(device_, at::kFloat); });
    for (size_t i = 0; i < want.size(); ++i) ExpectNear(got[i], want[i], 1e-4, std::to_string(i));
  }
}

// What a model trains on and its gradients, by one device and type.
struct Way {
  at::Device device;
  at::ScalarType type;
};
Named ObjectiveAndGradients(const ModelSpec& spec, const Way& way) {
  const Batch batch = SmallBatch();
  const auto model = MakeModel(spec, 3);
  model->train();
  model->to(way.device, way.type);
  BeginRows(/*seed=*/5, /*step=*/2, /*first_row=*/0, batch.inputs_bs.size(0));
  const Loss loss = model->ComputeLoss({batch.inputs_bs.to(way.device), batch.targets_bt.to(way.device)});
  at::Tensor objective = loss.objective_sum.defined() ? loss.objective_sum : loss.nll_sum;
  if (loss.side.auxiliary.defined()) objective = objective + loss.side.auxiliary;
  objective.backward();
  Named out{{"objective", objective.detach()}};
  for (const auto& [name, mean] : loss.side.means) out.emplace_back(name, (mean.sum / mean.count).detach());
  for (const auto& parameter : model->named_parameters())
    if (parameter.value().grad().defined()) out.emplace_back(parameter.key(), parameter.value().grad());
  return out;
}

// Whole models: what the kernels are given by the layers is what they expect. Dropout and jitter are the same draws in
// every type.
TEST_P(DeviceOps, EveryArchitecture) {
  for (const ModelCase& model_case : ModelCases())
    for (const double dropout : {0.0, 0.2}) {
      ModelSpec spec = model_case.Spec(SmallShape(), dropout);
      spec.z_loss = dropout / 10;
      const Named want = ObjectiveAndGradients(spec, {at::kCPU, at::kDouble});
      const Named got = ByKernels([&] { return ObjectiveAndGradients(spec, {device_, at::kFloat}); });
      ASSERT_EQ(got.size(), want.size()) << model_case.Name();
      for (size_t i = 0; i < want.size(); ++i)
        ExpectNear(got[i].second, want[i].second, 2e-4, model_case.Name() + " " + want[i].first);
    }
}

}  // namespace
}  // namespace allometry::trainer
