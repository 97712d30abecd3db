#include "worker/trainer/layers/mixture_cross_entropy.h"

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

struct Gradients {
  at::Tensor nll_sum, z_sum;
  at::Tensor hidden_nkd, log_prior_nk, table_vd;
};

// Likelihoods of the tokens from those of their softmaxes: nll = -log sum_k exp(log prior_k - nll_k). The derivative by
// nll_k is softmax k's share of the sum, by log prior_k the same with the other sign.
struct Shares {
  at::Tensor nll_n, share_nk;
};
Shares Mix(const at::Tensor& log_prior_nk, const at::Tensor& nll_nk, const at::Tensor& targets_n) {
  const at::Tensor joint = log_prior_nk - nll_nk, counts = targets_n != 0;
  return {-at::logsumexp(joint, 1) * counts, at::softmax(joint, 1) * counts.unsqueeze(1)};
}

// The targets of the rows [n k] that the tokens' softmaxes are.
at::Tensor Repeated(const at::Tensor& targets_n, int64_t softmaxes) { return targets_n.repeat_interleave(softmaxes); }

// The softmaxes as rows of their own: their likelihoods, and their gradients by the logits and, into drows, by the
// rows.
struct RowLosses {
  at::Tensor nll_r, dlogits_rv;
};
RowLosses RunRows(const at::Tensor& rows_rd, const at::Tensor& table_vd, const at::Tensor& targets_r,
                  at::Tensor drows_rd) {
  const int64_t n = rows_rd.size(0), v = table_vd.size(0);
  const int64_t step = rows_rd.is_cpu() ? ChunkRows(n, kCachedLogits, v) : n;
  const RowLosses out{at::empty({n}, rows_rd.options().dtype(ops::SumType(rows_rd.scalar_type()))),
                      at::empty({n, v}, rows_rd.options())};
  for (int64_t row = 0; row < n; row += step) {
    const auto part = [&](const at::Tensor& t) { return t.slice(0, row, std::min(n, row + step)); };
    at::Tensor logits = part(out.dlogits_rv), drows = part(drows_rd);
    at::mm_out(logits, part(rows_rd), table_vd.t());
    part(out.nll_r).copy_(ops::CrossEntropy(logits, part(targets_r), /*gradient=*/true));
    at::mm_out(drows, logits, table_vd);
  }
  return out;
}

// Adds the z-loss of the rows, its gradients by the prior and half of those by rows and table; returns what remains:
// the weight of the likelihood's gradient at each row. For log(Z)'s gradient by the logits is the softmax, that is the
// likelihood's and, added here, 1 at the target.
at::Tensor AddZLoss(const Mixture& part, const at::Tensor& rows_rd, const at::Tensor& targets_r, const RowLosses& run,
                    double z, at::Tensor drows_rd, Gradients& out) {
  const auto wide = run.nll_r.scalar_type();
  const at::Tensor at_target_rd = part.table_vd.index_select(0, targets_r);
  const at::Tensor logit_r = (rows_rd.to(wide) * at_target_rd.to(wide)).sum(1);
  const at::Tensor log_z_nk = ((run.nll_r + logit_r) * (targets_r != 0)).view(part.log_prior_nk.sizes());
  const at::Tensor slope_nk = part.log_prior_nk.exp() * log_z_nk * (2 * z), cost_nk = slope_nk * log_z_nk / 2;
  out.z_sum.add_(cost_nk.sum());
  out.log_prior_nk.add_(cost_nk);
  const at::Tensor slope_r1 = slope_nk.to(rows_rd.scalar_type()).view({-1, 1});
  drows_rd.add_(slope_r1 * at_target_rd);
  out.table_vd.index_add_(0, targets_r, (slope_r1 * rows_rd).to(wide));
  return slope_r1;
}

// Adds logits^T rows to the table's gradient.
void AddToTable(const at::Tensor& dlogits_rv, const at::Tensor& rows_rd, at::Tensor dtable_vd) {
  if (dtable_vd.scalar_type() == rows_rd.scalar_type())
    dtable_vd.addmm_(dlogits_rv.t(), rows_rd);
  else
    dtable_vd.add_(at::mm(dlogits_rv.t(), rows_rd));
}

// AddTokens with likelihoods, mixture and z-loss by one of a GPU's kernels.
void AddTokensByKernels(const kernels::KernelTable& table, const Mixture& part, const at::Tensor& targets_n, double z,
                        Gradients out) {
  const int64_t d = part.hidden_nkd.size(2);
  const at::Tensor rows = part.hidden_nkd.reshape({-1, d}), logits = at::mm(rows, part.table_vd.t());
  const ops::device::RowLosses losses =
      ops::device::MixtureCrossEntropy(table, logits, part.log_prior_nk, targets_n, z, out.log_prior_nk);
  out.nll_sum.add_(losses.nll_n.sum());
  out.z_sum.add_(losses.z_loss_n.sum());
  at::Tensor drows = out.hidden_nkd.view({-1, d});
  at::mm_out(drows, logits, part.table_vd);
  AddToTable(logits, rows, out.table_vd);
}

// Loss and gradients of tokens whose logits are all held at once; adds to the sums and table_vd, fills in the others.
void AddTokens(const Mixture& part, const at::Tensor& targets_n, double z, Gradients out) {
  const int64_t softmaxes = part.hidden_nkd.size(1), d = part.hidden_nkd.size(2);
  if (const auto* table = ops::device::KernelsOf(part.hidden_nkd); table && softmaxes <= kernels::kMostSoftmaxes)
    return AddTokensByKernels(*table, part, targets_n, z, out);
  const at::Tensor rows = part.hidden_nkd.reshape({-1, d}), drows = out.hidden_nkd.view({-1, d});
  const at::Tensor targets_r = Repeated(targets_n, softmaxes);
  const RowLosses run = RunRows(rows, part.table_vd, targets_r, drows);
  const Shares shares = Mix(part.log_prior_nk, run.nll_r.view({-1, softmaxes}), targets_n);
  out.nll_sum.add_(shares.nll_n.sum());
  out.log_prior_nk.copy_(-shares.share_nk);
  at::Tensor weights_r1 = shares.share_nk.to(rows.scalar_type()).view({-1, 1});
  if (z != 0) {
    const at::Tensor dlikelihood_rd = drows.clone();
    drows.zero_();
    weights_r1 = weights_r1 + AddZLoss(part, rows, targets_r, run, z, drows, out);
    drows.add_(dlikelihood_rd * weights_r1);
  } else {
    drows.mul_(weights_r1);
  }
  AddToTable(run.dlogits_rv, rows * weights_r1, out.table_vd);
}

Gradients RunMixture(const Mixture& mixture, const at::Tensor& targets_n, double z) {
  const int64_t n = mixture.hidden_nkd.size(0), softmaxes = mixture.hidden_nkd.size(1), v = mixture.table_vd.size(0);
  const auto wide = mixture.log_prior_nk.options();
  Gradients out{at::zeros({}, wide), at::zeros({}, wide), at::empty_like(mixture.hidden_nkd),
                at::empty_like(mixture.log_prior_nk), at::zeros(mixture.table_vd.sizes(), wide)};
  // No more than a model with one softmax holds.
  const int64_t logits = std::min(n * v, kHeldLogits), step = ChunkRows(n, logits, v * softmaxes);
  for (int64_t token = 0; token < n; token += step) {
    const auto part = [&](const at::Tensor& t) { return t.slice(0, token, std::min(n, token + step)); };
    AddTokens({part(mixture.hidden_nkd), part(mixture.log_prior_nk), mixture.table_vd}, part(targets_n), z,
              {out.nll_sum, out.z_sum, part(out.hidden_nkd), part(out.log_prior_nk), out.table_vd});
  }
  out.table_vd = out.table_vd.to(mixture.table_vd.scalar_type());
  return out;
}

// Returns what is differentiated, likelihoods and z-loss, and the likelihoods alone.
struct MixtureFunction : torch::autograd::Function<MixtureFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& hidden_nkd, const at::Tensor& log_prior_nk,
                               const at::Tensor& table_vd, const at::Tensor& targets_n, double z) {
    const Gradients pass =
        RunMixture({hidden_nkd.contiguous(), log_prior_nk.contiguous(), table_vd}, targets_n.contiguous(), z);
    context->saved_data["hidden"] = pass.hidden_nkd;
    context->saved_data["log_prior"] = pass.log_prior_nk;
    context->saved_data["table"] = pass.table_vd;
    context->mark_non_differentiable({pass.nll_sum});
    return {pass.nll_sum + pass.z_sum, pass.nll_sum};
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    TORCH_CHECK(context->saved_data.count("hidden"), "the loss's backward pass was already taken");
    const auto scaled = [&](const char* name) { return context->saved_data[name].toTensor().mul_(gradients[0]); };
    variable_list out{scaled("hidden"), scaled("log_prior"), scaled("table"), at::Tensor(), at::Tensor()};
    context->saved_data.clear();
    return out;
  }
};

}  // namespace

at::Tensor LogPrior(const at::Tensor& logits_nk) {
  return at::log_softmax(logits_nk.to(ops::SumType(logits_nk.scalar_type())), -1);
}

at::Tensor MixtureLogProbabilities(const Mixture& mixture) {
  at::Tensor sum;
  for (int64_t k = 0; k < mixture.hidden_nkd.size(1); ++k) {
    const at::Tensor term = LogPrior(at::linear(mixture.hidden_nkd.select(1, k), mixture.table_vd)) +
                            mixture.log_prior_nk.slice(1, k, k + 1);
    sum = sum.defined() ? at::logaddexp(sum, term) : term;
  }
  return sum;
}

at::Tensor MixtureCrossEntropySum(const Mixture& mixture, const at::Tensor& targets_n) {
  if (!at::GradMode::is_enabled()) return MixtureCrossEntropyRows(mixture, targets_n).sum();
  return MixtureFunction::apply(mixture.hidden_nkd, mixture.log_prior_nk, mixture.table_vd, targets_n, 0.0)[0];
}

ZLoss MixtureCrossEntropyWithZLoss(const Mixture& mixture, const at::Tensor& targets_n, double z) {
  if (z == 0) {
    const at::Tensor sum = MixtureCrossEntropySum(mixture, targets_n);
    return {sum, sum.detach()};
  }
  const variable_list sums =
      MixtureFunction::apply(mixture.hidden_nkd, mixture.log_prior_nk, mixture.table_vd, targets_n, z);
  return {sums[0], sums[1]};
}

at::Tensor MixtureCrossEntropyRows(const Mixture& mixture, const at::Tensor& targets_n) {
  at::NoGradGuard no_grad;
  const int64_t softmaxes = mixture.hidden_nkd.size(1);
  const at::Tensor rows = mixture.hidden_nkd.reshape({-1, mixture.hidden_nkd.size(2)});
  const at::Tensor nll_r = LinearCrossEntropyRows(rows, mixture.table_vd, Repeated(targets_n, softmaxes));
  return Mix(mixture.log_prior_nk, nll_r.view({-1, softmaxes}), targets_n).nll_n;
}

}  // namespace allometry::trainer
