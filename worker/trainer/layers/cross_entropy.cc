#include "worker/trainer/layers/cross_entropy.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "worker/trainer/layers/ops.h"

namespace allometry::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Logits whose gradients are held at once: the table's gradient is one product over them.
constexpr int64_t kHeldLogits = int64_t{1} << 28;
// Logits that go through product, softmax and product while they are in a CPU's cache.
constexpr int64_t kCachedLogits = int64_t{1} << 21;

int64_t ChunkRows(int64_t logits, int64_t vocabulary) { return std::max<int64_t>(1, logits / vocabulary); }

struct HeadPass {
  at::Tensor nll_sum;
  at::Tensor dhidden_nd, dtable_vd;
};

// Loss and gradients of the rows of one held chunk; writes dhidden, returns the logits' gradient and adds to nll_sum.
at::Tensor HeldChunk(const at::Tensor& hidden, const at::Tensor& table, const at::Tensor& targets, at::Tensor dhidden,
                     at::Tensor& nll_sum) {
  const int64_t n = hidden.size(0), v = table.size(0);
  const at::Tensor logits = at::empty({n, v}, hidden.options());
  const int64_t step = hidden.is_cpu() ? ChunkRows(kCachedLogits, v) : n;
  for (int64_t row = 0; row < n; row += step) {
    const int64_t end = std::min(n, row + step);
    at::Tensor part = logits.slice(0, row, end), dpart = dhidden.slice(0, row, end);
    at::mm_out(part, hidden.slice(0, row, end), table.t());
    nll_sum.add_(ops::CrossEntropy(part, targets.slice(0, row, end), /*gradient=*/true).sum());
    at::mm_out(dpart, part, table);
  }
  return logits;
}

HeadPass RunHead(const at::Tensor& hidden, const at::Tensor& table, const at::Tensor& targets) {
  const int64_t n = hidden.size(0), step = ChunkRows(kHeldLogits, table.size(0));
  const auto sum_type = ops::SumType(hidden.scalar_type());
  HeadPass out{at::zeros({}, hidden.options().dtype(sum_type)), at::empty_like(hidden), {}};
  for (int64_t row = 0; row < n; row += step) {
    const int64_t end = std::min(n, row + step);
    const at::Tensor part = hidden.slice(0, row, end);
    const at::Tensor dlogits =
        HeldChunk(part, table, targets.slice(0, row, end), out.dhidden_nd.slice(0, row, end), out.nll_sum);
    const at::Tensor dtable = at::mm(dlogits.t(), part);
    if (!out.dtable_vd.defined())
      out.dtable_vd = n > step ? dtable.to(sum_type) : dtable;
    else
      out.dtable_vd.add_(dtable);
  }
  out.dtable_vd = out.dtable_vd.to(table.scalar_type());
  return out;
}

struct CrossEntropyFunction : torch::autograd::Function<CrossEntropyFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden, const at::Tensor& table,
                            const at::Tensor& targets) {
    const HeadPass pass = RunHead(hidden.contiguous(), table, targets.contiguous());
    context->saved_data["dhidden"] = pass.dhidden_nd;
    context->saved_data["dtable"] = pass.dtable_vd;
    return pass.nll_sum;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    TORCH_CHECK(context->saved_data.count("dhidden"), "the loss's backward pass was already taken");
    at::Tensor dhidden = context->saved_data["dhidden"].toTensor(), dtable = context->saved_data["dtable"].toTensor();
    context->saved_data.clear();
    return {dhidden.mul_(gradients[0]), dtable.mul_(gradients[0]), at::Tensor()};
  }
};

}  // namespace

at::Tensor LinearCrossEntropySum(const at::Tensor& hidden_nd, const at::Tensor& table_vd, const at::Tensor& targets_n) {
  if (!at::GradMode::is_enabled()) return LinearCrossEntropyRows(hidden_nd, table_vd, targets_n).sum();
  return CrossEntropyFunction::apply(hidden_nd, table_vd, targets_n);
}

at::Tensor LinearCrossEntropyRows(const at::Tensor& hidden_nd, const at::Tensor& table_vd,
                                  const at::Tensor& targets_n) {
  at::NoGradGuard no_grad;
  const int64_t n = hidden_nd.size(0), v = table_vd.size(0);
  const at::Tensor hidden = hidden_nd.contiguous(), targets = targets_n.contiguous();
  const at::Tensor nll = at::empty({n}, hidden.options().dtype(ops::SumType(hidden.scalar_type())));
  const int64_t step = ChunkRows(hidden.is_cpu() ? kCachedLogits : kHeldLogits, v);
  for (int64_t row = 0; row < n; row += step) {
    const int64_t end = std::min(n, row + step);
    at::Tensor logits = at::mm(hidden.slice(0, row, end), table_vd.t());
    nll.slice(0, row, end).copy_(ops::CrossEntropy(logits, targets.slice(0, row, end), /*gradient=*/false));
  }
  return nll;
}

}  // namespace allometry::trainer
