// The layers' attention by the kernels on tensors, against the plain products and softmax in float64 under autograd,
// with the bias that the layers use (position_bias.h).
#include "worker/trainer/layers/device_attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/unit/kernels/tensor_case.h"
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

TEST(DeviceAttentionTakes, Bfloat16Only) {
  AttentionCall call;
  call.q_rows = call.k_rows = call.v_rows = at::zeros({4, 16});
  EXPECT_FALSE(ops::device::TakesAttention(call));
  call.q_rows = call.k_rows = call.v_rows = at::zeros({4, 16}, at::kBFloat16);
  EXPECT_TRUE(ops::device::TakesAttention(call));
}

}  // namespace
}  // namespace allometry::trainer
