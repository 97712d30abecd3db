// The layers' attention by the kernels on tensors, against the plain products and softmax in float64 under autograd,
// with the bias that the layers use (position_bias.h).
#include "worker/trainer/layers/device_attention.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <string>

#include "tests/unit/kernels/tensor_case.h"
#include "tests/unit/models/model_cases.h"
#include "worker/trainer/layers/plain_attention.h"
#include "worker/trainer/layers/position_bias.h"

namespace allometry::trainer {
namespace {

using ops::device::AttentionCall;

class DeviceAttention : public TensorKernelTest {
 protected:
  at::Tensor Draw(at::IntArrayRef sizes, double scale = 1) const {
    return (at::randn(sizes) * scale).to(at::kBFloat16);
  }
};
INSTANTIATE_TEST_SUITE_P(Kernels, DeviceAttention, ::testing::Bool(), TensorKernelName);

at::Tensor ToHeads(const at::Tensor& rows, int64_t batch, int64_t heads) {
  return rows.view({batch, rows.size(0) / batch, heads, -1}).transpose(1, 2);
}

// out rows, and the gradients of q, k, v and the table (undefined without one) under dout.
std::vector<at::Tensor> Plain(const AttentionCall& call, const at::Tensor& dout) {
  const auto leaf = [](const at::Tensor& t) {
    return t.defined() ? t.to(at::kCPU, at::kDouble).detach().clone().requires_grad_(true) : at::Tensor();
  };
  const at::Tensor q = leaf(call.q_rows), k = leaf(call.k_rows), v = leaf(call.v_rows), table = leaf(call.table);
  at::Tensor scores =
      at::matmul(ToHeads(q, call.batch, call.heads), ToHeads(k, call.batch, call.heads).transpose(2, 3));
  if (table.defined()) scores = scores + PositionBias(table, scores.size(2), call.causal);
  if (call.mask_bk.defined()) scores = scores + call.mask_bk.to(at::kCPU, at::kDouble).view({call.batch, 1, 1, -1});
  const at::Tensor out = at::matmul(at::softmax(scores, -1), ToHeads(v, call.batch, call.heads));
  const at::Tensor rows = out.transpose(1, 2).reshape({q.size(0), q.size(1)});
  rows.backward(dout.to(at::kCPU, at::kDouble));
  return {rows.detach(), q.grad(), k.grad(), v.grad(), table.defined() ? table.grad() : at::Tensor()};
}

void ExpectNear(const at::Tensor& got, const at::Tensor& want, double tolerance, const char* what) {
  const at::Tensor error = got.to(at::kCPU, at::kDouble) - want;
  EXPECT_LE(error.norm().item<double>(), tolerance * want.norm().item<double>()) << what;
}

void Check(const kernels::KernelTable& table, const AttentionCall& call, const at::Tensor& dout) {
  ASSERT_TRUE(ops::device::TakesAttention(call));
  const auto result = ops::device::AttentionForward(table, call);
  const auto got = ops::device::AttentionBackward(table, call, result, dout, call.table.defined());
  const std::vector<at::Tensor> want = Plain(call, dout);
  ExpectNear(result.out_rows, want[0], 4e-3, "out");
  ExpectNear(got.dq_rows, want[1], 8e-3, "dq");
  ExpectNear(got.dk_rows, want[2], 8e-3, "dk");
  ExpectNear(got.dv_rows, want[3], 8e-3, "dv");
  if (call.table.defined()) ExpectNear(got.dtable, want[4], 2e-2, "dtable");
}

TEST_P(DeviceAttention, SelfAttentionFromOnePackedProjection) {
  at::manual_seed(1);
  const int64_t batch = 2, heads = 3, length = 75, depth = 16;
  const at::Tensor packed = Draw({batch * length, 3 * heads * depth}, 0.7).to(device_);
  for (const bool causal : {false, true}) {
    AttentionCall call{.batch = batch, .heads = heads, .causal = causal};
    call.q_rows = packed.slice(1, 0, heads * depth);
    call.k_rows = packed.slice(1, heads * depth, 2 * heads * depth);
    call.v_rows = packed.slice(1, 2 * heads * depth);
    call.table = at::randn({kRelativeBuckets, heads}).to(device_);
    if (!causal) {
      at::Tensor ids = at::ones({batch, length}, at::kLong);
      ids.slice(1, 60).slice(0, 0, 1).fill_(0);
      call.mask_bk = PaddingMask(ids, at::kBFloat16).to(device_);
    }
    Check(*table_, call, Draw({batch * length, heads * depth}).to(device_));
  }
}

TEST_P(DeviceAttention, CrossAttention) {
  at::manual_seed(2);
  const int64_t batch = 3, heads = 2, queries = 20, keys = 33, depth = 64;
  AttentionCall call{.batch = batch, .heads = heads};
  call.q_rows = Draw({batch * queries, heads * depth}, 0.3).to(device_);
  call.k_rows = Draw({batch * keys, heads * depth}).to(device_);
  call.v_rows = Draw({batch * keys, heads * depth}).to(device_);
  at::Tensor ids = at::ones({batch, keys}, at::kLong);
  ids.select(0, 1).fill_(0);  // an example of nothing but padding
  call.mask_bk = PaddingMask(ids, at::kBFloat16).to(device_);
  Check(*table_, call, Draw({batch * queries, heads * depth}).to(device_));
}

// What the probabilities of one draw are multiplied by, [b, h, q, k].
at::Tensor KeptOf(const RowDraw& draw, int64_t batch, int64_t heads, int64_t length, double share) {
  const uint32_t rate = kernels::DropoutRate(share);
  const at::Tensor kept = at::zeros({batch * heads * length, length}, at::kDouble);
  auto* out = kept.mutable_data_ptr<double>();
  for (int64_t row = 0; row < batch * heads * length; ++row) {
    const auto number = static_cast<uint64_t>(draw.first * heads * length + row);
    const uint32_t key = kernels::DropoutRowKey(draw.key, draw.number, number);
    for (int64_t k = 0; k < length; ++k)
      if (kernels::DropoutKeeps(kernels::DropoutBits(key, static_cast<uint32_t>(k / 2)), k % 2, rate))
        out[row * length + k] = kernels::DropoutScale(rate);
  }
  return kept.view({batch, heads, length, length});
}

// Rows 2 and 3 of a batch, as one pass over them: the layer's draw is that of their places in the batch.
TEST_P(DeviceAttention, ALayerDropsByRow) {
  at::manual_seed(3);
  const int64_t batch = 2, length = 11, d = 16;
  const arch::Shape shape{.encoder_layers = 1, .decoder_layers = 1, .d_model = d, .d_ff = 8, .heads = 2, .d_kv = 8};
  Attention attention(shape, /*with_table=*/true);
  for (const at::Tensor& p : attention.parameters()) p.detach().normal_(0, 0.15);
  attention.to(at::kBFloat16);
  const at::Tensor h = Draw({batch, length, d}), dy = Draw({batch, length, d});
  const auto run = [&](at::Device device, at::ScalarType type, const at::Tensor& kept) {
    Attention own(shape, true);
    const at::Tensor x = h.to(device, type).detach().clone().requires_grad_(true);
    own.to(device, type);
    for (const auto& p : attention.named_parameters()) {
      const at::NoGradGuard no_grad;
      own.named_parameters()[p.key()].copy_(p.value());
    }
    BeginRows(7, 3, 2, batch);
    StackContext context;
    context.positions = PositionsFor(own.table(), x, shape.d_kv, /*causal=*/true);
    at::Tensor y;
    if (kept.defined()) {
      const auto project = [&](const at::Tensor& w) {
        return at::linear(x, w).view({batch, length, 2, -1}).transpose(1, 2);
      };
      const at::Tensor scores = at::matmul(project(own.q()), project(own.k()).transpose(2, 3));
      const at::Tensor p = at::softmax(scores + context.positions.bias_hqk, -1) * kept;
      y = at::linear(at::matmul(p, project(own.v())).transpose(1, 2).flatten(2), own.o());
    } else {
      EXPECT_TRUE(context.positions.table.defined());
      EXPECT_FALSE(context.positions.bias_hqk.defined());
      y = SelfAttend(own, x, context, 0.25);
    }
    y.backward(dy.to(device, type));
    std::vector<at::Tensor> out{y.detach(), x.grad()};
    for (const at::Tensor& p : own.parameters()) out.push_back(p.grad());
    return out;
  };
  BeginRows(7, 3, 2, batch);
  const auto want = run(at::kCPU, at::kDouble, KeptOf(NextRowDraw(batch), batch, 2, length, 0.25));
  const auto got = ByKernels([&] { return run(device_, at::kBFloat16, {}); });
  for (size_t i = 0; i < want.size(); ++i) ExpectNear(got[i], want[i], 2e-2, std::to_string(i).c_str());
}

// The halves of a batch draw what the whole does, another step something else.
TEST_P(DeviceAttention, MicroBatchesDropTheSame) {
  at::manual_seed(4);
  const arch::Shape shape{.encoder_layers = 1, .decoder_layers = 1, .d_model = 16, .d_ff = 8, .heads = 2, .d_kv = 8};
  AttentionSublayer layer(shape, /*is_cross=*/false, /*with_table=*/true, /*dropout=*/0.3);
  layer.Initialise(at::detail::createCPUGenerator(1));
  layer.to(device_, at::kBFloat16);
  const at::Tensor x = Draw({4, 9, 16}).to(device_);
  const auto run = [&](int64_t step, int64_t first, int64_t rows) {
    const at::NoGradGuard no_grad;
    BeginRows(7, step, first, rows);
    const at::Tensor part = x.slice(0, first, first + rows);
    StackContext context;
    context.positions = PositionsFor(layer.PositionTable(), part, shape.d_kv, /*causal=*/false);
    return layer.forward(part, context).to(at::kCPU, at::kFloat);
  };
  ByKernels([&] {
    const at::Tensor whole = run(1, 0, 4), halves = at::cat({run(1, 0, 2), run(1, 2, 2)});
    EXPECT_TRUE(at::allclose(halves, whole, 0, 2e-2));
    EXPECT_FALSE(at::allclose(run(2, 0, 4), whole, 0, 2e-2));
  });
}

const kernels::KernelTable* counted = nullptr;
int passes = 0;
void CountForward(kernels::Stream stream, const kernels::AttentionForwardArgs& args) {
  ++passes;
  counted->attention_forward(stream, args);
}
void NoScores(kernels::Stream, kernels::DataType, const kernels::SoftmaxForwardArgs&) {
  ADD_FAILURE() << "a layer has stored its scores";
}

struct Trained {
  at::Tensor loss;
  std::vector<at::Tensor> gradients;
};
// One pass of a model whose weights are bfloat16's, in any type.
Trained Train(const ModelSpec& spec, at::Device device, at::ScalarType type, bool recompute = false) {
  const auto model = MakeModel(spec, 3);
  model->to(at::kBFloat16);
  model->to(device, type);
  model->train();
  model->set_recompute(recompute);
  BeginRows(5, 2, 0, 2);
  const at::Tensor inputs = Ids({5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0}, 2).to(device),
                   targets = Ids({11, 12, 13, 14, 15, 16, 17, 18, 0, 0}, 2).to(device);
  const Loss loss = model->ComputeLoss({inputs, targets});
  loss.nll_sum.backward();
  Trained out{loss.nll_sum.detach().to(at::kCPU, at::kDouble), {}};
  for (const at::Tensor& p : model->parameters())
    out.gradients.push_back((p.grad().defined() ? p.grad() : at::zeros_like(p)).to(at::kCPU, at::kDouble));
  return out;
}
double ErrorOf(const Trained& got, const Trained& want) {
  double error = 0, size = 0;
  for (size_t i = 0; i < want.gradients.size(); ++i) {
    error += (got.gradients[i] - want.gradients[i]).square().sum().item<double>();
    size += want.gradients[i].square().sum().item<double>();
  }
  return std::sqrt(error / size);
}

// Every architecture in bfloat16: the gradients are as near to float64's as without kernels. Which expert a token goes
// to can hang on one rounding, so that Switch, whose attention is the transformer's, is not compared.
TEST_P(DeviceAttention, EveryArchitecture) {
  const arch::Shape shape{2, 3, 16, 24, 2, 8, 50};
  kernels::KernelTable table = *table_;
  counted = table_;
  table.attention_forward = &CountForward;
  for (const ModelCase& model_case : ModelCases()) {
    const std::string name = model_case.Name();
    if (model_case.architecture == "switch") continue;
    const ModelSpec spec = model_case.Spec(shape);
    table.softmax_forward = model_case.architecture == "funnel" ? table_->softmax_forward : &NoScores;
    const Trained want = Train(spec, at::kCPU, at::kDouble), plain = Train(spec, at::kCPU, at::kBFloat16);
    passes = 0;
    std::optional<kernels::ForceKernels> force;
    if (device_.is_cpu()) force.emplace(table);
    const Trained got = Train(spec, device_, at::kBFloat16);
    if (device_.is_cpu()) {
      EXPECT_GT(passes, 0) << name;
    }
    EXPECT_NEAR(got.loss.item<double>(), want.loss.item<double>(), 0.02 * want.loss.item<double>()) << name;
    EXPECT_LE(ErrorOf(got, want), 1.5 * ErrorOf(plain, want) + 2e-3) << name;
  }
}

// A block that is computed again draws the same probabilities.
TEST_P(DeviceAttention, RecomputationChangesNotABit) {
  for (const ModelCase& model_case : {ModelCase{"transformer", nullptr}, ModelCase{"evolved", nullptr, 2}}) {
    const ModelSpec spec = model_case.Spec({2, 2, 16, 24, 2, 8, 50}, 0.2);
    ByKernels([&] {
      const Trained kept = Train(spec, device_, at::kBFloat16), again = Train(spec, device_, at::kBFloat16, true);
      EXPECT_TRUE(at::equal(kept.loss, again.loss));
      for (size_t i = 0; i < kept.gradients.size(); ++i)
        EXPECT_TRUE(at::equal(kept.gradients[i], again.gradients[i])) << model_case.Name() << " " << i;
    });
  }
}

TEST(DeviceAttentionTakes, Bfloat16Only) {
  AttentionCall call;
  call.q_rows = call.k_rows = call.v_rows = at::zeros({4, 16});
  EXPECT_FALSE(ops::device::TakesAttention(call));
  call.q_rows = call.k_rows = call.v_rows = at::zeros({4, 16}, at::kBFloat16);
  EXPECT_TRUE(ops::device::TakesAttention(call));
}

}  // namespace
}  // namespace allometry::trainer
