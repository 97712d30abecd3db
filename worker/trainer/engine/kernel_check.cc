#include "worker/trainer/engine/kernel_check.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <sys/wait.h>

#include <array>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>

#include "worker/trainer/engine/device.h"
#include "worker/trainer/engine/training_step.h"
#include "worker/trainer/kernels/tensor_kernels.h"

namespace allometry::trainer {
namespace {

using common::Json;

constexpr int kCheckedSteps = 3;  // with graphs: as it is, recorded, launched

// What steps leave, by what it is.
using CheckedNumbers = std::vector<std::pair<std::string, double>>;

// Each type has one of the optimisers.
TrainingConfig CheckConfig(const std::string& architecture, const arch::Shape& shape, at::ScalarType type) {
  TrainingConfig config;
  config.model = {architecture, shape, *arch::CompleteOptions(**arch::FindArchitecture(architecture), Json())};
  config.optimization.optimizer.name = type == at::kFloat ? "adamw" : "adafactor";
  config.optimization.schedule = {"constant", 1e-3, 0, "hold"};
  config.optimization.clip_norm = 1;
  config.batch_sequences = 4;
  config.steps = kCheckedSteps;
  return config;
}

DeviceBatch CheckBatch(int64_t step, int64_t vocabulary, const at::Device& device) {
  const auto generator = at::detail::createCPUGenerator(static_cast<uint64_t>(step));
  const at::Tensor inputs = at::randint(3, vocabulary, {4, 32}, generator, at::kLong);
  const at::Tensor targets = inputs.slice(1, 0, 16).clone();
  inputs[1].slice(0, 20).fill_(0);
  targets[2].slice(0, 5 + step).fill_(0);
  const int64_t tokens = targets.ne(0).sum().item<int64_t>();
  return {inputs.to(device), targets.to(device), {0, 4}, 4, tokens};
}

CheckedNumbers TakeCheckedSteps(const TrainingConfig& config, at::ScalarType type, const at::Device& device,
                                const StepGraphMaker& graphs) {
  const SideStream stream(device, SideStream::Priority::kNormal);
  const OnStream on_stream(stream);
  ModelState state(MakeModel({config.model.architecture, config.model.shape, config.model.options}, config.seed),
                   device, type);
  const auto optimizer = *MakeOptimizer(config.optimization.optimizer, state.masters());
  TrainingStep step({.config = config,
                     .device = device,
                     .state = state,
                     .optimizer = *optimizer,
                     .micro_batch = 2,
                     .graphs = graphs});
  state.model().train();
  CheckedNumbers numbers;
  for (int64_t n = 1; n <= config.steps; ++n) {
    const StepResult result =
        step.Take(n, CheckBatch(n, config.model.shape.vocabulary, device), /*wants_norm=*/true, {[] {}, [] {}});
    const std::string of = " of step " + std::to_string(n);
    numbers.emplace_back("loss" + of, result.loss.item<double>());
    // An optimiser makes as much of a gradient that is rounding alone as of any: in bf16 later norms may differ.
    if (n == 1 || type == at::kFloat) numbers.emplace_back("gradient norm" + of, result.gradient_norm.item<double>());
  }
  TORCH_CHECK(!graphs || step.graph_launches() == kCheckedSteps - 1, "the step cannot be recorded as a graph");
  return numbers;
}

// Empty: they agree.
std::string Difference(const CheckedNumbers& plain, const CheckedNumbers& other, at::ScalarType type) {
  for (size_t i = 0; i < plain.size(); ++i) {
    const auto& [what, want] = plain[i];
    const double got = other[i].second, rounding = type == at::kBFloat16 ? 2e-2 : 2e-3;
    const double tolerance = what.starts_with("loss") ? rounding : 5 * rounding;
    if (!(std::abs(got - want) <= tolerance * std::abs(want)))
      return what + " is " + std::to_string(got) + ", by LibTorch's operations " + std::to_string(want);
  }
  return "";
}

std::string ErrorOf(const std::function<void()>& f) {
  try {
    f();
    return "";
  } catch (const c10::Error& e) {
    return e.what_without_backtrace();
  } catch (const std::exception& e) {
    return e.what();
  }
}

void CheckArchitecture(const TrainingConfig& config, at::ScalarType type, const at::Device& device,
                       const KernelCheckOptions& options, KernelCheck* check) {
  CheckedNumbers plain, kernels, graphs;
  const auto take = [&](CheckedNumbers* numbers, const StepGraphMaker& maker) {
    return [&, numbers, maker] { *numbers = TakeCheckedSteps(config, type, device, maker); };
  };
  const std::string name = config.model.architecture + (type == at::kBFloat16 ? " in bf16" : " in fp32");
  options.plainly(take(&plain, nullptr));
  std::string error = ErrorOf([&] { options.by_kernels(take(&kernels, nullptr)); });
  if (error.empty()) error = Difference(plain, kernels, type);
  if (!error.empty()) {
    *check = {false, false, name + " by kernels: " + error};
    return;
  }
  if (!options.graphs || !check->graphs) return;
  error = ErrorOf([&] { options.by_kernels(take(&graphs, options.graphs)); });
  if (error.empty()) error = Difference(plain, graphs, type);
  if (error.empty()) return;
  check->graphs = false;
  check->why_not = name + " as a graph: " + error;
}

Json ToJson(const KernelCheck& check) {
  return {{"kernels", check.kernels}, {"graphs", check.graphs}, {"why_not", check.why_not}};
}

// What a program prints that is stopped after two minutes, and how it ended, as waitpid says it. It stays in the
// caller's process group, with which it is killed.
struct Said {
  std::string text;
  int status = -1;
};
Said Ask(const std::string& command) {
  std::FILE* output = ::popen(("exec timeout --foreground -s KILL 120 " + command).c_str(), "re");
  if (!output) return {};
  Said said;
  std::array<char, 4096> part{};
  while (const size_t size = std::fread(part.data(), 1, part.size(), output)) said.text.append(part.data(), size);
  said.status = ::pclose(output);
  return said;
}

KernelCheck CheckKernelsApart(const std::string& device) {
  std::error_code ec;
  ::setenv("ALLOMETRY_TRAINER_ITSELF", std::filesystem::read_symlink("/proc/self/exe", ec).c_str(), 1);
  const Said said = Ask("\"$ALLOMETRY_TRAINER_ITSELF\" --check-kernels " + device);
  const Json verdict = Json::parse(said.text, nullptr, /*allow_exceptions=*/false);
  if (verdict.is_object())
    return {verdict.value("kernels", false), verdict.value("graphs", false), verdict.value("why_not", "")};
  const int signal = WIFSIGNALED(said.status) ? WTERMSIG(said.status) : WEXITSTATUS(said.status) - 128;
  if (signal == SIGKILL) return {false, false, "the check did not end within two minutes"};
  return {false, false, "the check ended with status " + std::to_string(WEXITSTATUS(said.status))};
}

}  // namespace

KernelCheck CheckKernels(const at::Device& device, const KernelCheckOptions& options) {
  KernelCheck check{true, true, ""};
  for (const std::string& architecture : options.architectures)
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      CheckArchitecture(CheckConfig(architecture, options.shape, type), type, device, options, &check);
      if (!check.kernels) return check;
    }
  return check;
}

KernelCheck CheckKernels(const at::Device& device) {
  std::string why_not;
  if (!kernels::LoadKernelTable(&why_not)) return {false, false, why_not};
  KernelCheckOptions options;
  for (const arch::Architecture* architecture : arch::Architectures())
    options.architectures.emplace_back(architecture->name());
  options.shape = {4, 4, 128, 256, 2, 64, 512};
  options.plainly = [](const std::function<void()>& f) {
    kernels::UseModule(false);
    f();
  };
  options.by_kernels = [](const std::function<void()>& f) {
    kernels::UseModule(true);
    f();
  };
  options.graphs = CudaGraphs(&why_not);
  KernelCheck check = CheckKernels(device, options);
  if (options.graphs || !check.kernels) return check;
  return {true, false, why_not};
}

int PrintKernelCheck(const std::string& device) {
  KernelCheck check;
  check.why_not = ErrorOf([&] {
    PrepareProcess(1);
    auto opened = OpenDevice(device, 1);
    check = opened ? CheckKernels(*opened) : KernelCheck{false, false, opened.error().message};
  });
  return std::puts(ToJson(check).dump().c_str()) < 0 || !check.kernels;
}

void AddKernelChecks(Json* devices, const std::string& only) {
  std::map<std::string, KernelCheck> checks;
  for (Json& device : *devices) {
    if (device["device"] == "cpu" || device["fault"] != "") continue;
    if (!only.empty() && device["device"] != only) continue;
    const auto [known, is_new] = checks.try_emplace(device["name"].get<std::string>());
    if (is_new) known->second = CheckKernelsApart(device["device"].get<std::string>());
    device.update(ToJson(known->second));
  }
}

}  // namespace allometry::trainer
