// The built-in models' side of the parity tests.
//   model_exchange make SPEC.json OUT.safetensors             writes freshly initialised weights (seed 7)
//   model_exchange run SPEC.json IN.safetensors OUT.safetensors
//     IN: weights, and "inputs", "targets"; OUT: "logits" [b, t, v], "nll_sum" and, of models that have one,
//     "auxiliary".
// Experts come and go one by one, as Hugging Face names them. SPEC's "lengths" are those of a recipe.

#include <torch/autograd.h>

#include <cstdio>
#include <string>

#include "common/json.h"
#include "worker/trainer/checkpoint/safetensors.h"
#include "worker/trainer/models/model.h"
#include "worker/trainer/models/switch.h"

namespace allometry::trainer {
namespace {

std::shared_ptr<Model> Build(const char* path) {
  const common::Json j = *common::ReadJsonFile(path);
  const common::Json& s = j.at("shape");
  const arch::Shape shape{s.at("encoder_layers"), s.at("decoder_layers"), s.at("d_model"),   s.at("d_ff"),
                          s.at("heads"),          s.at("d_kv"),           s.at("vocabulary")};
  ModelSpec spec{j.at("architecture"), shape, j.value("options", common::Json::object())};
  if (j.contains("lengths")) spec.lengths = {j["lengths"].at("inputs"), j["lengths"].at("targets")};
  const auto model = MakeModel(spec, 7);
  model->eval();
  return model;
}

int Make(const char* spec, const char* out) {
  TensorFile file;
  const auto model = Build(spec);
  for (const auto& item : model->named_parameters()) file.tensors[item.key()] = item.value().detach();
  for (const auto& item : model->named_buffers()) file.tensors[item.key()] = item.value();
  file.tensors = SplitExperts(file.tensors);
  return WriteSafetensors(out, file).ok() ? 0 : 1;
}

int Run(const char* spec, const char* in, const char* out) {
  torch::NoGradGuard no_grad;
  const auto model = Build(spec);
  TensorFile file = *ReadSafetensors(in);
  file.tensors = StackExperts(file.tensors);
  for (auto& item : model->named_parameters()) item.value().copy_(file.tensors.at(item.key()));
  for (auto& item : model->named_buffers()) item.value().copy_(file.tensors.at(item.key()));
  const Batch batch{file.tensors.at("inputs"), file.tensors.at("targets")};
  TensorFile result;
  result.tensors["logits"] =
      model->Decode(model->Encode(batch.inputs_bs), batch.inputs_bs, ShiftRight(batch.targets_bt));
  const Loss loss = model->ComputeLoss(batch);
  result.tensors["nll_sum"] = loss.nll_sum;
  if (loss.side.auxiliary.defined()) result.tensors["auxiliary"] = loss.side.auxiliary;
  return WriteSafetensors(out, result).ok() ? 0 : 1;
}

}  // namespace
}  // namespace allometry::trainer

int main(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  if (verb == "make" && argc == 4) return allometry::trainer::Make(argv[2], argv[3]);
  if (verb == "run" && argc == 5) return allometry::trainer::Run(argv[2], argv[3], argv[4]);
  std::fprintf(stderr, "usage: model_exchange make SPEC OUT | run SPEC IN OUT\n");
  return 2;
}
