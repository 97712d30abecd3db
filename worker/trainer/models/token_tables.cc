#include "worker/trainer/models/token_tables.h"

#include <ATen/ATen.h>

#include <cmath>

namespace allometry::trainer {

TokenTables::TokenTables(torch::nn::Module* model, const Options& options) : options_(options) {
  const int64_t width = options.factor > 0 ? options.factor : options.d_model;
  shared_ = AddWeight(model, "shared", {options.vocabulary, width});
  if (options.factor > 0) projection_ = AddWeight(model, "shared_projection", {width, options.d_model});
  if (options.untied) output_ = AddWeight(model, "lm_head", {options.vocabulary, options.d_model});
}

void TokenTables::Initialise(at::Generator generator) {
  FillNormal(**shared_, 1.0, generator);
  if (options_.constant_coordinate) {
    at::NoGradGuard no_grad;
    (**shared_).select(1, 0).fill_(1.0);
  }
  if (projection_) FillNormal(**projection_, std::pow(static_cast<double>(options_.factor), -0.5), generator);
  if (output_) FillNormal(**output_, std::pow(static_cast<double>(options_.d_model), -0.5), generator);
}

at::Tensor TokenTables::Embed(const at::Tensor& ids_bt) const {
  const at::Tensor rows = at::embedding(**shared_, ids_bt);
  return projection_ ? at::matmul(rows, **projection_) : rows;
}

TokenTables::Head TokenTables::OutputHead(const at::Tensor& decoded_nd) const {
  if (output_) return {decoded_nd, **output_};
  // A tied output embedding is scaled, since the input embedding has unit variance.
  const at::Tensor scaled = decoded_nd * std::pow(static_cast<double>(options_.d_model), -0.5);
  return {projection_ ? at::linear(scaled, **projection_) : scaled, **shared_};
}

}  // namespace allometry::trainer
