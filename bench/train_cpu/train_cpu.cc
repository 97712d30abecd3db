// One model's training steps on a CPU, driven by the Python programs here and in bench/zoo_cpu, or by hand:
//   train_cpu SPEC.json BATCH.safetensors PRECISION THREADS
// SPEC: {"architecture", "shape", "options"}; BATCH: "inputs", "targets" and, if they should not be random, the
// weights. PRECISION: fp32; bf16 (weights and optimiser in bfloat16); bf16_masters (bfloat16 weights written from
// float32 masters, as allo-trainer trains). Commands on standard input, one answer line each:
//   step         forward, backward, AdamW: "<seconds> <loss per token>"
//   parts        the same: "<seconds forward> <backward> <optimiser>"
//   flops        "<exact FLOPs of a training step>", an integer: 3 x forward x examples
//   product N    one N x N x N matrix product in the model's type: "<seconds>"
//   convolution  lconv's or dconv's convolution alone, forward and backward at the encoder's shape: "<seconds>"
//   logits OUT   writes the logits [b, t, v], of evaluation, as safetensors: "ok"
#include <ATen/ATen.h>
#include <torch/csrc/autograd/variable.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "common/json.h"
#include "worker/trainer/checkpoint/safetensors.h"
#include "worker/trainer/engine/device.h"
#include "worker/trainer/layers/dynamic_convolution.h"
#include "worker/trainer/layers/light_convolution.h"
#include "worker/trainer/layers/ops.h"
#include "worker/trainer/models/model.h"
#include "worker/trainer/models/switch.h"

namespace allometry::trainer {
namespace {

using Clock = std::chrono::steady_clock;

// The model that SPEC asks for, built for the batch's lengths.
ModelSpec ReadSpec(const char* path, arch::Lengths lengths) {
  const common::Json j = *common::ReadJsonFile(path);
  const common::Json& s = j.at("shape");
  const arch::Shape shape{s.at("encoder_layers"), s.at("decoder_layers"), s.at("d_model"),   s.at("d_ff"),
                          s.at("heads"),          s.at("d_kv"),           s.at("vocabulary")};
  const std::string name = j.at("architecture");
  const arch::Architecture& architecture = **arch::FindArchitecture(name);
  const common::Json given = arch::WithRecipeLengths(architecture, j.value("options", common::Json()), lengths);
  return {
      .architecture = name, .shape = shape, .options = *arch::CompleteOptions(architecture, given), .lengths = lengths};
}

// AdamW over parameters of one type in one call, with PyTorch's defaults.
class FusedAdamW {
 public:
  // The parameter itself is updated, or a master copy of it if it is not of `type`.
  void Add(const at::Tensor& parameter, at::ScalarType type) {
    parameters_.push_back(parameter);
    values_.push_back(parameter.detach().to(type));
    first_.push_back(at::zeros_like(values_.back()));
    second_.push_back(at::zeros_like(values_.back()));
    steps_.push_back(at::zeros({}));
  }

  void Step() {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> gradients;
    for (size_t i = 0; i < parameters_.size(); ++i)
      gradients.push_back(parameters_[i].grad().to(values_[i].scalar_type()));
    for (at::Tensor& step : steps_) step.add_(1);
    at::_fused_adamw_(values_, gradients, first_, second_, {}, steps_, /*lr=*/1e-4, 0.9, 0.999, /*weight_decay=*/0.01,
                      1e-8, /*amsgrad=*/false, /*maximize=*/false);
    for (size_t i = 0; i < parameters_.size(); ++i) {
      if (parameters_[i].scalar_type() != values_[i].scalar_type()) parameters_[i].detach().copy_(values_[i]);
      parameters_[i].mutable_grad() = at::Tensor();
    }
  }

 private:
  std::vector<at::Tensor> parameters_, values_, first_, second_, steps_;
};

struct Bench {
  ModelSpec spec;
  std::shared_ptr<Model> model;
  Batch batch;
  at::ScalarType type = at::kFloat;
  std::map<at::ScalarType, FusedAdamW> optimizers;  // by the type of the values
  int64_t steps = 0;
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
  bench.model->BeginStep(++bench.steps);
  const Loss sums = bench.model->ComputeLoss(bench.batch);
  const at::Tensor loss = sums.nll_sum / (bench.batch.targets_bt != 0).sum();
  const at::Tensor& auxiliary = sums.side.auxiliary;
  const at::Tensor total = auxiliary.defined() ? loss + auxiliary / bench.batch.inputs_bs.size(0) : loss;
  times.forward = Since(start);
  total.backward();
  times.backward = Since(start);
  for (auto& [type, optimizer] : bench.optimizers) optimizer.Step();
  times.optimizer = Since(start);
  times.loss = loss.item<double>();
  return times;
}

int64_t TrainingFlops(const Bench& bench) {
  const arch::Architecture& architecture = **arch::FindArchitecture(bench.spec.architecture);
  const auto flops = architecture.CountFlops(bench.spec.shape, bench.spec.options, bench.spec.lengths);
  return 3 * flops.forward * bench.batch.inputs_bs.size(0);
}

double ProductSeconds(at::ScalarType type, int64_t n) {
  const auto options = at::TensorOptions(type);
  const at::Tensor a = at::ones({n, n}, options), b = at::ones({n, n}, options);
  at::Tensor out = at::zeros({n, n}, options);
  auto start = Clock::now();
  at::mm_out(out, a, b);
  return Since(start);
}

double ConvolutionSeconds(const Bench& bench) {
  constexpr int64_t kWidth = 9, kFirst = -4;
  const int64_t batch = bench.batch.inputs_bs.size(0), length = bench.batch.inputs_bs.size(1),
                d = bench.spec.shape.d_model;
  const bool dynamic = bench.spec.architecture == "dconv";
  const auto random = [](at::IntArrayRef sizes, at::ScalarType type) { return at::randn(sizes).to(type); };
  const at::Tensor x = random({batch, length, d}, bench.type).requires_grad_(true), dy = random(x.sizes(), bench.type);
  const at::Tensor kernel =
      (dynamic ? random({batch, length, kWidth, d}, bench.type) : random({kWidth, d}, ops::SumType(bench.type)))
          .requires_grad_(true);
  auto start = Clock::now();
  (dynamic ? DynamicConvolution(x, kernel, kFirst) : DepthwiseConvolution(x, kernel, kFirst)).backward(dy);
  return Since(start);
}

bool WriteLogits(Bench& bench, const std::string& path) {
  at::NoGradGuard no_grad;
  const Batch& b = bench.batch;
  TensorFile file;
  bench.model->eval();
  file.tensors["logits"] = bench.model->Decode(bench.model->Encode(b.inputs_bs), b.inputs_bs, ShiftRight(b.targets_bt));
  bench.model->train();
  return WriteSafetensors(path, file).ok();
}

Bench MakeBench(const char* spec, const char* batch, const std::string& precision) {
  TensorFile file = *ReadSafetensors(batch);
  file.tensors = StackExperts(file.tensors);
  Bench bench;
  bench.batch = {file.tensors.at("inputs"), file.tensors.at("targets")};
  bench.spec = ReadSpec(spec, {bench.batch.inputs_bs.size(1), bench.batch.targets_bt.size(1)});
  bench.model = MakeModel(bench.spec, 7);
  bench.type = precision == "fp32" ? at::kFloat : at::kBFloat16;
  at::NoGradGuard no_grad;
  for (auto& item : bench.model->named_parameters()) {
    at::Tensor parameter = item.value();
    if (const auto given = file.tensors.find(item.key()); given != file.tensors.end()) parameter.copy_(given->second);
    if (!bench.model->StaysFloat32(item.key())) parameter.set_data(parameter.to(bench.type));
    const at::ScalarType updated = precision == "bf16_masters" ? at::kFloat : parameter.scalar_type();
    bench.optimizers[updated].Add(parameter, updated);
  }
  return bench;
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
    } else if (line == "flops") {
      std::printf("%lld\n", static_cast<long long>(TrainingFlops(bench)));
    } else if (line.rfind("product ", 0) == 0) {
      std::printf("%.6f\n", ProductSeconds(bench.type, std::stoll(line.substr(8))));
    } else if (line == "convolution") {
      std::printf("%.6f\n", ConvolutionSeconds(bench));
    } else if (line.rfind("logits ", 0) == 0) {
      std::puts(WriteLogits(bench, line.substr(7)) ? "ok" : "error");
    } else {
      std::puts("error: no such command");
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
