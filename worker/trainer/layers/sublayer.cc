#include "worker/trainer/layers/sublayer.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "worker/trainer/layers/ops.h"

namespace allometry::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct NormFunction : torch::autograd::Function<NormFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight) {
    const at::Tensor rows = x.contiguous().view({-1, x.size(-1)});
    const ops::Normed normed = ops::NormForward(rows, weight);
    context->save_for_backward({rows, weight, normed.scale_r});
    return normed.y_rd.view(x.sizes());
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor dy = gradients[0].contiguous().view(saved[0].sizes());
    const ops::NormGradients out = ops::NormBackward(dy, saved[0], saved[1], saved[2], {});
    return {out.dx_rd.view(gradients[0].sizes()), out.dweight_d};
  }
};

}  // namespace

void FillNormal(const at::Tensor& parameter, double sd, at::Generator generator) {
  at::NoGradGuard no_grad;
  parameter.normal_(0.0, sd, generator);
}

Weight::Weight(at::IntArrayRef sizes) { weight_ = register_parameter("weight", at::zeros(sizes)); }

std::shared_ptr<Weight> AddWeight(torch::nn::Module* parent, const std::string& name, at::IntArrayRef sizes) {
  return parent->register_module(name, std::make_shared<Weight>(sizes));
}

RmsNorm::RmsNorm(int64_t d_model) { weight_ = register_parameter("weight", at::ones({d_model})); }

at::Tensor RmsNorm::forward(const at::Tensor& x) { return NormFunction::apply(x, weight_); }

}  // namespace allometry::trainer
