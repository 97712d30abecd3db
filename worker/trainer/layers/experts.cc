#include "worker/trainer/layers/experts.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>

#include "worker/trainer/layers/device_ops.h"
#include "worker/trainer/layers/ops.h"

namespace allometry::trainer {
namespace {

constexpr double kJitter = 1e-2;         // of the router's inputs, in training
constexpr double kBalanceWeight = 1e-2;  // of the load-balancing loss

// Of each sequence e * sum over experts of (share of its tokens sent there) * (mean probability), summed over sequences
// (equations 4 to 6 of the paper, one sequence at a time). 1 per sequence where both are even.
at::Tensor BalanceLoss(const at::Tensor& p_bte, const at::Tensor& sent_be, const at::Tensor& token_bt) {
  const at::Tensor tokens_b1 = token_bt.sum(1, /*keepdim=*/true).clamp_min(1);
  const at::Tensor share_be = sent_be.to(p_bte.scalar_type()) / tokens_b1;
  const at::Tensor mean_be = (p_bte * token_bt.unsqueeze(-1)).sum(1) / tokens_b1;
  return (share_be * mean_be).sum() * static_cast<double>(p_bte.size(2));
}

void AddSideTerms(const at::Tensor& p_bte, const at::Tensor& sent_be, const at::Tensor& token_bt,
                  const at::Tensor& served_bt, SideTerms& side) {
  side.AddAuxiliary(BalanceLoss(p_bte, sent_be, token_bt) * kBalanceWeight);
  side.AddMean("dropped_fraction", token_bt.logical_and(served_bt.logical_not()).sum(), token_bt.sum());
}

// Rows x [e, n, in] of each expert times its weight [e, out, in]. LibTorch's own gradient of the weight is a transposed
// view, of which the accumulation makes a copy: a sixth of a step, for weights that are most of the model.
struct ExpertProduct : torch::autograd::Function<ExpertProduct> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& weight) {
    context->save_for_backward({x, weight});
    return at::bmm(x, weight.transpose(1, 2));
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], dy = gradients[0];
    return {at::bmm(dy, weight), at::bmm(dy.transpose(1, 2), x)};
  }
};

// Slices to their ranks, and their gradients back.
struct ExpertExchange : torch::autograd::Function<ExpertExchange> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const ExpertRanks* ranks) {
    context->saved_data["ranks"] = reinterpret_cast<int64_t>(ranks);  // the layer's, which outlives the pass
    return ranks->exchange(x.contiguous());
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto* ranks = reinterpret_cast<const ExpertRanks*>(context->saved_data["ranks"].toInt());
    return {ranks->exchange(gradients[0].contiguous()), at::Tensor()};
  }
};

const kernels::KernelTable& RowKernels(const at::Tensor& t) {
  const kernels::KernelTable* table = ops::device::KernelsOf(t);
  TORCH_CHECK(table, "experts that were dispatched by kernels have none for their backward pass");
  return *table;
}

// Rows of tokens to their slots, zeros where a slot is empty; the gradients go the other way.
struct DispatchFunction : torch::autograd::Function<DispatchFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x_rd,
                            const at::Tensor& token_of_slot, const at::Tensor& slot_of_token) {
    context->save_for_backward({slot_of_token});
    return ops::device::GatherRows(RowKernels(x_rd), x_rd, token_of_slot, {}, {});
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const at::Tensor dy = gradients[0].contiguous();
    return {ops::device::GatherRows(RowKernels(dy), dy, context->get_saved_variables()[0], {}, {}), at::Tensor(),
            at::Tensor()};
  }
};

// x, or 0 without it, + gate of the token times the row of its slot.
struct CombineFunction : torch::autograd::Function<CombineFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const MaybeTensor& x_rd,
                            const at::Tensor& slots_sd, const at::Tensor& gate_r, const at::Tensor& token_of_slot,
                            const at::Tensor& slot_of_token) {
    context->save_for_backward({slots_sd, gate_r, token_of_slot, slot_of_token});
    context->saved_data["x"] = x_rd.has_value();
    return ops::device::GatherRows(RowKernels(slots_sd), slots_sd, slot_of_token, {.by_destination = gate_r},
                                   TensorOf(x_rd));
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const torch::autograd::variable_list s = context->get_saved_variables();
    const at::Tensor &slots = s[0], &gate = s[1], &token_of_slot = s[2], &slot_of_token = s[3];
    const at::Tensor dy = gradients[0].contiguous();
    const kernels::KernelTable& table = RowKernels(dy);
    return {context->saved_data["x"].toBool() ? dy : at::Tensor(),
            ops::device::GatherRows(table, dy, token_of_slot, {.by_source = gate}, {}),
            ops::device::RowDots(table, dy, slots, slot_of_token), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

// Where each token goes. Slots are ordered by expert, sequence, place; `width` of them for each sequence and expert.
struct ExpertsSublayer::Routing {
  at::Tensor gate_bt;  // the expert's probability, 0 where no expert serves the position; sum type, with gradient
  at::Tensor slot_r;   // `slots` where no expert serves the position; by kernels -1
  int64_t width = 0, slots = 0;
  at::Tensor token_of_slot;  // by kernels alone: -1 where a slot is empty
};

ExpertsSublayer::ExpertsSublayer(const Sizes& sizes, double dropout) : sizes_(sizes), dropout_(dropout) {
  mlp_ = register_module("mlp", std::make_shared<torch::nn::Module>());
  router_ = mlp_->register_module("router", std::make_shared<torch::nn::Module>());
  experts_ = mlp_->register_module("experts", std::make_shared<torch::nn::Module>());
  classifier_ = AddWeight(router_.get(), "classifier", {sizes.experts, sizes.d_model});
  wi_ = AddWeight(experts_.get(), "wi", {sizes.experts, sizes.d_ff, sizes.d_model});
  wo_ = AddWeight(experts_.get(), "wo", {sizes.experts, sizes.d_model, sizes.d_ff});
  norm_ = register_module("layer_norm", std::make_shared<RmsNorm>(sizes.d_model));
}

void ExpertsSublayer::Initialise(at::Generator generator) {
  for (const auto& weight : {classifier_, wi_, wo_})
    FillNormal(**weight, std::pow(static_cast<double>((**weight).size(-1)), -0.5), generator);
}

at::Tensor ExpertsSublayer::forward(const at::Tensor& x_btd, const StackContext& context) {
  at::Tensor before_be;
  return Serve(x_btd, context, before_be);
}

at::Tensor ExpertsSublayer::Step(const at::Tensor& x_b1d, const StackContext& context, LayerCache& cache) {
  cache.tensors.resize(1);
  return Serve(x_b1d, context, cache.tensors[0]);
}

ExpertsSublayer::Routing ExpertsSublayer::Route(const at::Tensor& normed_btd, const StackContext& context,
                                                at::Tensor& before_be) const {
  const int64_t batch = normed_btd.size(0), length = normed_btd.size(1);
  const auto integers = normed_btd.options().dtype(at::kLong).requires_grad(false);
  const at::Tensor token_bt =
      context.token_bt.defined() ? context.token_bt : at::ones({batch, length}, integers.dtype(at::kBool));
  const at::Tensor p_bte = Probabilities(normed_btd);
  const auto [gate_bt, expert_bt] = p_bte.max(-1);
  Routing routing{gate_bt, {}, std::min(sizes_.capacity, length), 0, {}};
  routing.slots = sizes_.experts * batch * routing.width;
  const auto* table = ops::device::KernelsOf(normed_btd);
  if (table && !before_be.defined() && sizes_.experts <= kernels::kMostExperts) {
    const ops::device::Routes routes = ops::device::Route(*table, expert_bt.contiguous(), token_bt.contiguous(),
                                                          sizes_.experts, sizes_.capacity, routing.width);
    before_be = routes.sent_be;
    if (context.side)
      AddSideTerms(p_bte, before_be, token_bt, (routes.slot_of_token >= 0).view({batch, length}), *context.side);
    routing.slot_r = routes.slot_of_token;
    routing.token_of_slot = routes.token_of_slot;
    return routing;
  }
  const at::Tensor sent_bte =
      (expert_bt.unsqueeze(-1) == at::arange(sizes_.experts, integers)).logical_and(token_bt.unsqueeze(-1));
  const at::Tensor place_bt = sent_bte.cumsum(1).gather(2, expert_bt.unsqueeze(-1)).squeeze(-1) - 1;  // in this pass
  at::Tensor served_bt = token_bt;
  if (before_be.defined()) {
    served_bt = served_bt.logical_and(place_bt + before_be.gather(1, expert_bt) < sizes_.capacity);
    before_be = before_be + sent_bte.sum(1);
  } else {
    served_bt = served_bt.logical_and(place_bt < sizes_.capacity);
    before_be = sent_bte.sum(1);
  }
  if (context.side) AddSideTerms(p_bte, sent_bte.sum(1), token_bt, served_bt, *context.side);
  routing.gate_bt = gate_bt * served_bt;
  const at::Tensor own_bt = (expert_bt * batch + at::arange(batch, integers).unsqueeze(1)) * routing.width + place_bt;
  routing.slot_r = own_bt.masked_fill(served_bt.logical_not(), routing.slots).flatten();
  return routing;
}

// Shapes depend on no data: tokens are copied to their slots and back, and every slot is computed.
at::Tensor ExpertsSublayer::Serve(const at::Tensor& x_btd, const StackContext& context, at::Tensor& before_be) const {
  const int64_t d = sizes_.d_model;
  const at::Tensor normed_btd = norm_->forward(x_btd);
  const Routing to = Route(normed_btd, context, before_be);
  if (to.token_of_slot.defined()) return ServeByKernels(x_btd, normed_btd, to);
  // Whoever has no slot goes to a row behind them all, and takes any slot's result 0 times.
  const at::Tensor waiting = at::zeros({to.slots + 1, d}, normed_btd.options().requires_grad(false))
                                 .index_copy_(0, to.slot_r, normed_btd.view({-1, d}))
                                 .narrow(0, 0, to.slots);
  const at::Tensor done = RunExperts(waiting.view({sizes_.experts, -1, d})).view({to.slots, d});
  const at::Tensor y_btd = done.index_select(0, to.slot_r.clamp_max(to.slots - 1)).view(x_btd.sizes());
  return x_btd + Drop(y_btd * to.gate_bt.to(y_btd.scalar_type()).unsqueeze(-1), dropout_, is_training());
}

at::Tensor ExpertsSublayer::ServeByKernels(const at::Tensor& x_btd, const at::Tensor& normed_btd,
                                           const Routing& to) const {
  const int64_t d = sizes_.d_model;
  const at::Tensor waiting = DispatchFunction::apply(Rows(normed_btd), to.token_of_slot, to.slot_r);
  const at::Tensor done = RunExperts(waiting.view({sizes_.experts, -1, d})).view({to.slots, d});
  const at::Tensor gate_r = to.gate_bt.flatten();
  const bool drops = is_training() && dropout_ > 0;
  const MaybeTensor x = Maybe(drops ? at::Tensor() : Rows(x_btd));
  const at::Tensor y = CombineFunction::apply(x, done, gate_r, to.token_of_slot, to.slot_r).view(x_btd.sizes());
  return drops ? x_btd + Drop(y, dropout_, true) : y;
}

at::Tensor ExpertsSublayer::Probabilities(const at::Tensor& normed_btd) const {
  const auto type = ops::SumType(normed_btd.scalar_type());
  at::Tensor seen = normed_btd.to(type);
  if (is_training()) seen = seen * RandomUniform(seen.sizes(), seen.options(), 1 - kJitter, 1 + kJitter);
  return at::softmax(at::linear(seen, (**classifier_).to(type)), -1);
}

void ExpertsSublayer::Divide(const ExpertRanks& ranks) {
  at::NoGradGuard no_grad;
  ranks_ = ranks;
  const int64_t own = sizes_.experts / ranks.ranks;
  for (const auto& weight : {wi_, wo_}) {
    at::Tensor parameter = **weight;
    parameter.set_data(parameter.narrow(0, ranks.rank * own, own).clone());
  }
}

at::Tensor ExpertsSublayer::RunExperts(const at::Tensor& waiting_end) const {
  const int64_t own = (**wi_).size(0), d = sizes_.d_model;
  if (own == sizes_.experts) return RunOwn(waiting_end, {.outer = own, .of = own});
  const int64_t ranks = ranks_.ranks;
  const at::Tensor slices = ExpertExchange::apply(waiting_end.view({ranks, own, -1, d}), &ranks_);
  const RowLayout by{.outer = own,
                     .first = ranks_.rank * own,
                     .of = sizes_.experts,
                     .blocks = ranks,
                     .own_block = ranks_.rank,
                     .block_rows = ranks_.batch_rows};
  const at::Tensor done = RunOwn(slices.transpose(0, 1).reshape({own, -1, d}), by);
  return ExpertExchange::apply(done.view({own, ranks, -1, d}).transpose(0, 1), &ranks_).view(waiting_end.sizes());
}

at::Tensor ExpertsSublayer::RunOwn(const at::Tensor& waiting_end, const RowLayout& by) const {
  const at::Tensor hidden_enf = at::relu(ExpertProduct::apply(waiting_end, **wi_));
  return ExpertProduct::apply(Drop(hidden_enf, dropout_, is_training(), by), **wo_);
}

}  // namespace allometry::trainer
