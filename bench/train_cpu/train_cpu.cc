// One model's training steps on a CPU, driven by bench/train_cpu/train_cpu.py or by hand:
//   train_cpu SPEC.json BATCH.safetensors PRECISION THREADS
// SPEC: {"architecture", "shape", "options"}; BATCH: "inputs", "targets" and, if they should not be random, the
// weights. PRECISION: fp32; bf16 (weights and optimiser in bfloat16); bf16_masters (bfloat16 weights written from
// float32 masters, as allo-trainer trains). Commands on standard input, one answer line each:
//   step        forward, backward, AdamW: "<seconds> <loss per token>"
//   parts       the same: "<seconds forward> <backward> <optimiser>"
//   logits OUT  writes the logits [b, t, v] as safetensors: "ok"
#include <ATen/ATen.h>
#include <torch/csrc/autograd/variable.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "common/json.h"
#include "worker/trainer/checkpoint/safetensors.h"
#include "worker/trainer/engine/device.h"
#include "worker/trainer/models/model.h"

namespace allometry::trainer {
namespace {

using Clock = std::chrono::steady_clock;

std::shared_ptr<Model> Build(const common::Json& j) {
  const common::Json& s = j.at("shape");
  const arch::Shape shape{s.at("encoder_layers"), s.at("decoder_layers"), s.at("d_model"),   s.at("d_ff"),
                          s.at("heads"),          s.at("d_kv"),           s.at("vocabulary")};
  const std::string architecture = j.at("architecture");
  const auto options =
      arch::CompleteOptions(**arch::FindArchitecture(architecture), j.value("options", common::Json()));
  return MakeModel({architecture, shape, *options}, 7);
}

// AdamW over all parameters in one call, with PyTorch's defaults.
class FusedAdamW {
 public:
  FusedAdamW(const std::vector<at::Tensor>& parameters, bool masters) : parameters_(parameters), masters_(masters) {
    for (const at::Tensor& p : parameters) {
      values_.push_back(masters ? p.detach().to(at::kFloat).clone() : p.detach());
      first_.push_back(at::zeros_like(values_.back()));
      second_.push_back(at::zeros_like(values_.back()));
      steps_.push_back(at::zeros({}));
    }
  }

  void Step() {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> gradients;
    for (at::Tensor& p : parameters_) gradients.push_back(masters_ ? p.grad().to(at::kFloat) : p.grad());
    for (at::Tensor& step : steps_) step.add_(1);
    at::_fused_adamw_(values_, gradients, first_, second_, {}, steps_, /*lr=*/1e-4, 0.9, 0.999, /*weight_decay=*/0.01,
                      1e-8, /*amsgrad=*/false, /*maximize=*/false);
    for (size_t i = 0; i < parameters_.size(); ++i) {
      if (masters_) parameters_[i].detach().copy_(values_[i]);
      parameters_[i].mutable_grad() = at::Tensor();
    }
  }

 private:
  std::vector<at::Tensor> parameters_, values_, first_, second_, steps_;
  bool masters_;
};

struct Bench {
  std::shared_ptr<Model> model;
  Batch batch;
  FusedAdamW optimizer;
};

struct StepTimes {
  double forward = 0, backward = 0, optimizer = 0, loss = 0;
};

double Since(Clock::time_point& start) {
  const auto now = Clock::now();
  const double seconds = std::chrono::duration<double>(now - start).count();
  start = now;
  return seconds;
}

StepTimes Step(Bench& bench) {
  StepTimes times;
  auto start = Clock::now();
  const at::Tensor loss = bench.model->ComputeLoss(bench.batch).nll_sum / (bench.batch.targets_bt != 0).sum();
  times.forward = Since(start);
  loss.backward();
  times.backward = Since(start);
  bench.optimizer.Step();
  times.optimizer = Since(start);
  times.loss = loss.item<double>();
  return times;
}

bool WriteLogits(Bench& bench, const std::string& path) {
  at::NoGradGuard no_grad;
  const Batch& b = bench.batch;
  TensorFile file;
  file.tensors["logits"] = bench.model->Decode(bench.model->Encode(b.inputs_bs), b.inputs_bs, ShiftRight(b.targets_bt));
  return WriteSafetensors(path, file).ok();
}

Bench MakeBench(const char* spec, const char* batch, const std::string& precision) {
  auto model = Build(*common::ReadJsonFile(spec));
  TensorFile file = *ReadSafetensors(batch);
  at::NoGradGuard no_grad;
  for (auto& item : model->named_parameters()) {
    if (const auto given = file.tensors.find(item.key()); given != file.tensors.end())
      item.value().copy_(given->second);
    if (precision != "fp32") item.value().set_data(item.value().to(at::kBFloat16));
  }
  return {model,
          {file.tensors.at("inputs"), file.tensors.at("targets")},
          FusedAdamW(model->parameters(), precision == "bf16_masters")};
}

int Serve(Bench& bench) {
  std::string line;
  while (std::getline(std::cin, line)) {
    if (line == "step") {
      const StepTimes t = Step(bench);
      std::printf("%.6f %.5f\n", t.forward + t.backward + t.optimizer, t.loss);
    } else if (line == "parts") {
      const StepTimes t = Step(bench);
      std::printf("%.6f %.6f %.6f\n", t.forward, t.backward, t.optimizer);
    } else if (line.rfind("logits ", 0) == 0) {
      std::puts(WriteLogits(bench, line.substr(7)) ? "ok" : "error");
    } else {
      std::puts("error: step, parts or logits OUT");
    }
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace allometry::trainer

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: train_cpu SPEC.json BATCH.safetensors fp32|bf16|bf16_masters THREADS\n");
    return 2;
  }
  allometry::trainer::PrepareProcess(std::stoll(argv[4]));
  auto bench = allometry::trainer::MakeBench(argv[1], argv[2], argv[3]);
  return allometry::trainer::Serve(bench);
}
