#include "worker/trainer/layers/cross_entropy.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "worker/trainer/layers/device_ops.h"
#include "worker/trainer/layers/logit_chunks.h"
#include "worker/trainer/layers/ops.h"

namespace allometry::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct HeadPass {
  at::Tensor nll_sum, z_sum;
  at::Tensor dhidden_nd, dtable_vd;
};

// Turns logits into the gradient of the rows' loss in place, and adds the loss to `out`'s sums.
void RowsLoss(at::Tensor& logits, const at::Tensor& targets, double z, HeadPass& out) {
  if (z == 0) {
    out.nll_sum.add_(ops::CrossEntropy(logits, targets, /*gradient=*/true).sum());
    return;
  }
  if (const auto* table = kernels::KernelsFor(logits)) {
    const ops::device::RowLosses losses = ops::device::CrossEntropyWithZLoss(*table, logits, targets, z);
    out.nll_sum.add_(losses.nll_n.sum());
    out.z_sum.add_(losses.z_loss_n.sum());
    return;
  }
  const auto type = out.nll_sum.scalar_type();
  const at::Tensor index = targets.unsqueeze(1), at_target = logits.gather(1, index).squeeze(1).to(type);
  const at::Tensor nll = ops::CrossEntropy(logits, targets, /*gradient=*/true);
  const at::Tensor log_z = (nll + at_target) * (targets != 0);
  out.nll_sum.add_(nll.sum());
  out.z_sum.add_(log_z.square().sum(), z);
  // log(Z)'s gradient is the softmax, which is what `logits` now holds plus 1 at the target.
  const at::Tensor weight = (log_z * (2 * z)).to(logits.scalar_type()).unsqueeze(1);
  logits.mul_(1 + weight).scatter_add_(1, index, weight);
}

// Loss and gradients of the rows of one held chunk; writes dhidden, returns the logits' gradient and adds to the sums.
at::Tensor HeldChunk(const at::Tensor& hidden, const at::Tensor& table, const at::Tensor& targets, double z,
                     at::Tensor dhidden, HeadPass& out) {
  const int64_t n = hidden.size(0), v = table.size(0);
  const at::Tensor logits = at::empty({n, v}, hidden.options());
  const int64_t step = hidden.is_cpu() ? ChunkRows(n, kCachedLogits, v) : n;
  for (int64_t row = 0; row < n; row += step) {
    const int64_t end = std::min(n, row + step);
    at::Tensor part = logits.slice(0, row, end), dpart = dhidden.slice(0, row, end);
    at::mm_out(part, hidden.slice(0, row, end), table.t());
    RowsLoss(part, targets.slice(0, row, end), z, out);
    at::mm_out(dpart, part, table);
  }
  return logits;
}

HeadPass RunHead(const at::Tensor& hidden, const at::Tensor& table, const at::Tensor& targets, double z) {
  const int64_t n = hidden.size(0), step = ChunkRows(n, kHeldLogits, table.size(0));
  const auto sum_type = ops::SumType(hidden.scalar_type());
  const at::Tensor zero = at::zeros({}, hidden.options().dtype(sum_type));
  HeadPass out{zero, zero.clone(), at::empty_like(hidden), {}};
  for (int64_t row = 0; row < n; row += step) {
    const int64_t end = std::min(n, row + step);
    const at::Tensor part = hidden.slice(0, row, end);
    const at::Tensor dlogits =
        HeldChunk(part, table, targets.slice(0, row, end), z, out.dhidden_nd.slice(0, row, end), out);
    const at::Tensor dtable = at::mm(dlogits.t(), part);
    if (!out.dtable_vd.defined())
      out.dtable_vd = n > step ? dtable.to(sum_type) : dtable;
    else
      out.dtable_vd.add_(dtable);
  }
  out.dtable_vd = out.dtable_vd.to(table.scalar_type());
  return out;
}

// Returns what is differentiated, likelihoods and z-loss, and the likelihoods alone.
struct CrossEntropyFunction : torch::autograd::Function<CrossEntropyFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& hidden, const at::Tensor& table,
                               const at::Tensor& targets, double z) {
    const HeadPass pass = RunHead(hidden.contiguous(), table, targets.contiguous(), z);
    context->saved_data["dhidden"] = pass.dhidden_nd;
    context->saved_data["dtable"] = pass.dtable_vd;
    context->mark_non_differentiable({pass.nll_sum});
    return {pass.nll_sum + pass.z_sum, pass.nll_sum};
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    TORCH_CHECK(context->saved_data.count("dhidden"), "the loss's backward pass was already taken");
    at::Tensor dhidden = context->saved_data["dhidden"].toTensor(), dtable = context->saved_data["dtable"].toTensor();
    context->saved_data.clear();
    return {dhidden.mul_(gradients[0]), dtable.mul_(gradients[0]), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor LinearCrossEntropySum(const at::Tensor& hidden_nd, const at::Tensor& table_vd, const at::Tensor& targets_n) {
  if (!at::GradMode::is_enabled()) return LinearCrossEntropyRows(hidden_nd, table_vd, targets_n).sum();
  return CrossEntropyFunction::apply(hidden_nd, table_vd, targets_n, 0.0)[0];
}

ZLoss LinearCrossEntropyWithZLoss(const at::Tensor& hidden_nd, const at::Tensor& table_vd, const at::Tensor& targets_n,
                                  double z) {
  if (z == 0) {
    const at::Tensor sum = LinearCrossEntropySum(hidden_nd, table_vd, targets_n);
    return {sum, sum.detach()};
  }
  const variable_list sums = CrossEntropyFunction::apply(hidden_nd, table_vd, targets_n, z);
  return {sums[0], sums[1]};
}

at::Tensor LinearCrossEntropyRows(const at::Tensor& hidden_nd, const at::Tensor& table_vd,
                                  const at::Tensor& targets_n) {
  at::NoGradGuard no_grad;
  const int64_t n = hidden_nd.size(0), v = table_vd.size(0);
  const at::Tensor hidden = hidden_nd.contiguous(), targets = targets_n.contiguous();
  const at::Tensor nll = at::empty({n}, hidden.options().dtype(ops::SumType(hidden.scalar_type())));
  const int64_t step = ChunkRows(n, hidden.is_cpu() ? kCachedLogits : kHeldLogits, v);
  for (int64_t row = 0; row < n; row += step) {
    const int64_t end = std::min(n, row + step);
    at::Tensor logits = at::mm(hidden.slice(0, row, end), table_vd.t());
    nll.slice(0, row, end).copy_(ops::CrossEntropy(logits, targets.slice(0, row, end), /*gradient=*/false));
  }
  return nll;
}

}  // namespace allometry::trainer
