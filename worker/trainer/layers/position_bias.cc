#include "worker/trainer/layers/position_bias.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <limits>
#include <map>
#include <mutex>
#include <tuple>

#include "worker/trainer/layers/device_attention.h"
#include "worker/trainer/layers/ops.h"

namespace allometry::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A bias depends on key - query alone: diagonal i of 2n - 1 holds key - query = i - (n - 1).
at::Tensor DiagonalBuckets(int64_t length, bool causal) {
  const at::Tensor buckets = at::empty({2 * length - 1}, at::kLong);
  for (int64_t i = 0; i < 2 * length - 1; ++i)
    buckets.mutable_data_ptr<int64_t>()[i] = RelativeBucket(i - (length - 1), !causal);
  return buckets;
}

template <typename Sum>
void SpreadDiagonals(const Sum* diagonals, Sum* bias, int64_t heads, int64_t n) {
  for (int64_t h = 0; h < heads; ++h, diagonals += 2 * n - 1)
    for (int64_t q = 0; q < n; ++q, bias += n) std::copy_n(diagonals + n - 1 - q, n, bias);
}

void SumDiagonalsOf(const at::Tensor& gradient_hnn, at::Tensor& diagonals) {
  const int64_t heads = gradient_hnn.size(0), n = gradient_hnn.size(1);
  const auto sum = [&]<typename Sum>(Sum* out) {
    const Sum* in = gradient_hnn.const_data_ptr<Sum>();
    for (int64_t h = 0; h < heads; ++h, out += 2 * n - 1)
      for (int64_t q = 0; q < n; ++q, in += n) CpuKernels<Sum>().add(in, out + n - 1 - q, n);
  };
  if (gradient_hnn.scalar_type() == at::kDouble)
    sum(diagonals.mutable_data_ptr<double>());
  else
    sum(diagonals.mutable_data_ptr<float>());
}

// Index of the diagonal of every (query, key).
at::Tensor DiagonalIndex(int64_t n, at::Device device) {
  const at::Tensor positions = at::arange(n, at::TensorOptions(at::kLong).device(device));
  return positions.unsqueeze(0) - positions.unsqueeze(1) + (n - 1);
}

// Buckets are made on the host. A GPU keeps them, since a copy from ordinary memory would make the host wait, and has
// no place in a CUDA graph.
at::Tensor DiagonalBucketsOn(const at::Device& device, int64_t length, bool causal) {
  if (device.is_cpu()) return DiagonalBuckets(length, causal);
  static std::mutex mutex;
  static std::map<std::tuple<c10::DeviceIndex, int64_t, bool>, at::Tensor> kept;
  const std::lock_guard lock(mutex);
  at::Tensor& buckets = kept[{device.index(), length, causal}];
  if (!buckets.defined()) buckets = DiagonalBuckets(length, causal).to(device);
  return buckets;
}

struct PositionBiasFunction : torch::autograd::Function<PositionBiasFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& table, int64_t length, bool causal) {
    const at::Tensor buckets = DiagonalBucketsOn(table.device(), length, causal);
    context->save_for_backward({buckets});
    context->saved_data["type"] = static_cast<int64_t>(table.scalar_type());
    const at::Tensor diagonals =
        table.to(ops::SumType(table.scalar_type())).index_select(0, buckets).t().contiguous();  // [h, 2n - 1]
    if (causal) diagonals.slice(1, length).fill_(-std::numeric_limits<double>::infinity());
    const int64_t heads = table.size(1);
    if (!table.is_cpu())
      return diagonals.index_select(1, DiagonalIndex(length, table.device()).flatten()).view({heads, length, length});
    const at::Tensor bias = at::empty({heads, length, length}, diagonals.options());
    if (bias.scalar_type() == at::kDouble)
      SpreadDiagonals(diagonals.const_data_ptr<double>(), bias.mutable_data_ptr<double>(), heads, length);
    else
      SpreadDiagonals(diagonals.const_data_ptr<float>(), bias.mutable_data_ptr<float>(), heads, length);
    return bias;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::Tensor buckets = context->get_saved_variables()[0];
    const at::Tensor gradient = gradients[0].contiguous();
    const int64_t heads = gradient.size(0), n = gradient.size(1);
    at::Tensor diagonals = at::zeros({heads, 2 * n - 1}, gradient.options());
    if (gradient.is_cpu())
      SumDiagonalsOf(gradient, diagonals);
    else
      diagonals.index_add_(1, DiagonalIndex(n, gradient.device()).flatten(), gradient.view({heads, n * n}));
    const at::Tensor table =
        at::zeros({kRelativeBuckets, heads}, gradient.options()).index_add_(0, buckets, diagonals.t());
    const auto type = static_cast<at::ScalarType>(context->saved_data["type"].toInt());
    return {table.to(type), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor RelativeBuckets(int64_t queries, int64_t keys, bool bidirectional) {
  const at::Tensor buckets = at::empty({queries, keys}, at::kLong);
  auto* out = buckets.mutable_data_ptr<int64_t>();
  for (int64_t q = 0; q < queries; ++q)
    for (int64_t k = 0; k < keys; ++k) *out++ = RelativeBucket(k - q, bidirectional);
  return buckets;
}

at::Tensor PositionBias(const at::Tensor& table, int64_t length, bool causal) {
  return PositionBiasFunction::apply(table, length, causal);
}

at::Tensor PositionBiasRow(const at::Tensor& table, int64_t position) {
  at::NoGradGuard no_grad;
  const at::Tensor buckets = DiagonalBuckets(position + 1, /*causal=*/true).slice(0, 0, position + 1);
  return table.to(ops::SumType(table.scalar_type()))
      .index_select(0, buckets.to(table.device()))
      .t()
      .contiguous()
      .unsqueeze(1);
}

Positions PositionsFor(const at::Tensor& table, const at::Tensor& x_btd, int64_t depth, bool causal) {
  if (!table.defined()) return {};
  // Widened once, so that the layers' gradients are added up in float32.
  if (ops::device::AttentionKernels(x_btd, table.size(1), depth))
    return {.table = table.to(at::kFloat), .causal = causal};
  return {.bias_hqk = PositionBias(table, x_btd.size(1), causal)};
}

at::Tensor BiasOf(const Positions& positions, int64_t length) {
  return positions.table.defined() ? PositionBias(positions.table, length, positions.causal) : positions.bias_hqk;
}

at::Tensor PaddingMask(const at::Tensor& ids_bs, at::ScalarType type) {
  // Finite, so that a sequence of nothing but padding has a softmax; low enough that beside it nothing counts.
  const double forbidden = -3e38;
  return at::zeros(ids_bs.sizes(), ids_bs.options().dtype(ops::SumType(type))).masked_fill_(ids_bs == 0, forbidden);
}

}  // namespace allometry::trainer
