#include "worker/trainer/layers/token_mixing.h"

#include <ATen/ATen.h>

#include <cmath>
#include <vector>

#include "worker/trainer/layers/ops.h"

namespace allometry::trainer {

TokenMixingSublayer::TokenMixingSublayer(int64_t d_model, int64_t hidden, int64_t length, bool causal, double dropout)
    : hidden_(hidden), length_(length), causal_(causal), dropout_(dropout) {
  mixing_ = register_module("TokenMixing", std::make_shared<torch::nn::Module>());
  wi_ = AddWeight(mixing_.get(), "wi", {hidden, length});
  wo_ = AddWeight(mixing_.get(), "wo", {length, hidden});
  norm_ = register_module("layer_norm", std::make_shared<RmsNorm>(d_model));
}

void TokenMixingSublayer::Initialise(at::Generator generator) {
  FillNormal(**wi_, std::pow(static_cast<double>(length_), -0.5), generator);
  FillNormal(**wo_, std::pow(static_cast<double>(hidden_), -0.5), generator);
}

TokenMixingSublayer::Weights TokenMixingSublayer::MaskedWeights() const {
  if (!causal_) return {**wi_, **wo_};
  const at::TensorOptions options = (**wi_).options().requires_grad(false);
  const at::Tensor positions_t = at::arange(length_, options.dtype(at::kLong));
  const at::Tensor place_h =
      at::arange(hidden_, options.dtype(at::kLong)).mul(length_).div(hidden_, /*rounding_mode=*/"floor");
  const at::Tensor reads_ht = positions_t <= place_h.unsqueeze(1), feeds_th = positions_t.unsqueeze(1) >= place_h;
  return {**wi_ * reads_ht, **wo_ * feeds_th};
}

at::Tensor TokenMixingSublayer::forward(const at::Tensor& x_btd, const StackContext& context) {
  const int64_t length = x_btd.size(1);
  TORCH_CHECK(length <= length_, "a sequence of ", length, " tokens, and the model mixes ", length_, " positions");
  const Weights w = MaskedWeights();
  at::Tensor normed = norm_->forward(x_btd);
  if (context.keep_bs1.defined()) normed = normed * context.keep_bs1;
  const at::Tensor hidden_bdh = at::gelu(at::linear(normed.transpose(1, 2), w.read_ht.slice(1, 0, length)), "tanh");
  const at::Tensor mixed_bdt = at::linear(Drop(hidden_bdh, dropout_, is_training()), w.write_th.slice(0, 0, length));
  return x_btd + Drop(mixed_bdt.transpose(1, 2), dropout_, is_training());
}

at::Tensor TokenMixingSublayer::Step(const at::Tensor& x_b1d, const StackContext&, LayerCache& cache) {
  TORCH_CHECK(causal_, "only causal mixing goes step by step");
  TORCH_CHECK(cache.position < length_, "position ", cache.position, ", and the model mixes ", length_, " positions");
  const at::Tensor normed_bd1 = norm_->forward(x_b1d).transpose(1, 2);
  std::vector<at::Tensor>& kept = cache.tensors;  // sums [b, d, h] in the sum type, W1 and W2
  if (kept.empty()) {
    const Weights w = MaskedWeights();
    const auto type = ops::SumType(x_b1d.scalar_type());
    kept = {at::zeros({x_b1d.size(0), x_b1d.size(2), hidden_}, x_b1d.options().dtype(type)), w.read_ht, w.write_th};
  }
  kept[0] = kept[0] + normed_bd1 * kept[1].select(1, cache.position);
  const at::Tensor hidden_bdh = at::gelu(kept[0].to(x_b1d.scalar_type()), "tanh");
  return x_b1d + at::linear(hidden_bdh, kept[2].narrow(0, cache.position, 1)).transpose(1, 2);
}

}  // namespace allometry::trainer
