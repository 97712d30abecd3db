#include "worker/trainer/engine/kernel_check.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <sys/wait.h>

#include <algorithm>
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
constexpr int64_t kCheckedRows = 4, kCheckedMicroBatch = 2;

using Tensors = std::map<std::string, at::Tensor>;  // by the name of the trained one

// What steps leave.
struct CheckedSteps {
  std::vector<std::pair<std::string, double>> numbers;  // by what they are
  // Of AdamW. Adafactor, whose small tensors move by their gradients' signs, makes as much of a gradient that is
  // rounding alone as of any.
  Tensors mean_gradients, changes;
};

TrainingConfig CheckConfig(const KernelCheckCase& c) {
  TrainingConfig config;
  config.model = {c.architecture, c.shape, *arch::CompleteOptions(**arch::FindArchitecture(c.architecture), Json())};
  config.optimization.optimizer.name = c.optimizer;
  // So small a rate and so large an epsilon do not blow up what rounding leaves: usual ones make per cents of it within
  // three steps of a recurrent model in float32.
  config.optimization.optimizer.epsilon = 1e-4;
  config.optimization.schedule = {"constant", c.optimizer == "adamw" ? 1e-4 : 1e-3, 0, "hold"};
  config.optimization.clip_norm = 1;
  config.batch_sequences = kCheckedRows;
  config.steps = kCheckedSteps;
  config.dropout = c.dropout;
  return config;
}

// With padding on either side, of whole tiles of keys where there are several.
DeviceBatch CheckBatch(int64_t step, const KernelCheckCase& c, const at::Device& device) {
  const auto generator = at::detail::createCPUGenerator(static_cast<uint64_t>(step));
  const auto [length, target_length] = c.lengths;
  const at::Tensor inputs = at::randint(3, c.shape.vocabulary, {kCheckedRows, length}, generator, at::kLong);
  const at::Tensor targets = inputs.slice(1, 0, target_length).clone();
  inputs[1].slice(0, length * 5 / 8).fill_(0);
  inputs[3].slice(0, 0, length / 2).fill_(0);
  targets[2].slice(0, target_length / 3 + step).fill_(0);
  const int64_t tokens = targets.ne(0).sum().item<int64_t>();
  return {inputs.to(device), targets.to(device), {0, kCheckedRows}, kCheckedRows, tokens};
}

std::vector<at::Tensor> CopiesOf(const std::vector<TrainedTensor>& tensors) {
  std::vector<at::Tensor> copies;
  for (const TrainedTensor& tensor : tensors) copies.push_back(tensor.value.detach().clone());
  return copies;
}

void AddTensors(const std::vector<TrainedTensor>& now, const std::vector<at::Tensor>& before,
                const Optimizer& optimizer, CheckedSteps* steps) {
  const Tensors kept = optimizer.State();
  for (size_t i = 0; i < now.size(); ++i) {
    const auto moment = kept.find(now[i].name + ".first_moment");
    if (moment == kept.end()) continue;
    steps->mean_gradients[now[i].name] = moment->second.clone();
    steps->changes[now[i].name] = now[i].value.detach() - before[i];
  }
}

CheckedSteps TakeCheckedSteps(const KernelCheckCase& c, int64_t micro_batch, const at::Device& device,
                              const StepGraphMaker& graphs) {
  const TrainingConfig config = CheckConfig(c);
  const SideStream stream(device, SideStream::Priority::kNormal);
  const OnStream on_stream(stream);
  ModelState state(MakeModel({c.architecture, c.shape, config.model.options, c.dropout}, config.seed), device, c.type);
  const auto optimizer = *MakeOptimizer(config.optimization.optimizer, state.masters());
  TrainingStep step({.config = config,
                     .device = device,
                     .state = state,
                     .optimizer = *optimizer,
                     .micro_batch = micro_batch,
                     .graphs = graphs});
  state.model().train();
  const std::vector<at::Tensor> before = CopiesOf(state.masters());
  CheckedSteps steps;
  for (int64_t n = 1; n <= config.steps; ++n) {
    const StepResult result = step.Take(n, CheckBatch(n, c, device), /*wants_norm=*/true, {[] {}, [] {}});
    const std::string of = " of step " + std::to_string(n);
    steps.numbers.emplace_back("loss" + of, result.loss.item<double>());
    // In bf16 the optimisers make too much of rounding for later norms to be held against each other.
    if (n == 1 || c.type == at::kFloat)
      steps.numbers.emplace_back("gradient norm" + of, result.gradient_norm.item<double>());
  }
  TORCH_CHECK(!graphs || step.graph_launches() == kCheckedSteps - 1, "the step cannot be recorded as a graph");
  AddTensors(state.masters(), before, *optimizer, &steps);
  return steps;
}

// What the steps of a case are held against.
struct Reference {
  const CheckedSteps& steps;
  std::string how;  // they were taken
};

std::string NumbersDifference(const Reference& reference, const CheckedSteps& other, bool bf16) {
  for (size_t i = 0; i < reference.steps.numbers.size(); ++i) {
    const auto& [what, want] = reference.steps.numbers[i];
    const double got = other.numbers[i].second, rounding = bf16 ? 2e-2 : 2e-3;
    const double tolerance = what.starts_with("loss") ? rounding : 5 * rounding;
    if (!(std::abs(got - want) <= tolerance * std::abs(want)))
      return what + " is " + std::to_string(got) + ", " + reference.how + " " + std::to_string(want);
  }
  return "";
}

double NormOf(const at::Tensor& t) { return t.norm().item<double>(); }

std::string TensorsDifference(const std::string& what, const Tensors& reference, const Tensors& other,
                              const std::string& how, double tolerance) {
  double squares = 0;
  for (const auto& [name, want] : reference) squares += std::pow(NormOf(want), 2);
  const double least = 1e-4 * std::sqrt(squares);  // less may be rounding alone
  for (const auto& [name, want] : reference) {
    const double apart = NormOf(other.at(name) - want), norm = std::max(NormOf(want), least);
    if (!(apart <= tolerance * norm))
      return what + " of " + name + " differs by " + std::to_string(apart / norm) + " of its norm from that " + how;
  }
  return "";
}

// Empty: they agree. Losses and norms are sums over so much that they hide what one kernel makes wrong: a bucket's bias
// that does not learn, other values that are dropped. A tensor's own gradient shows it; in bf16 rounding leaves some
// per cent of that, by either way.
std::string Difference(const Reference& reference, const CheckedSteps& other, at::ScalarType type) {
  const bool bf16 = type == at::kBFloat16;
  const auto& [steps, how] = reference;
  const double tolerance = bf16 ? 0.25 : 0.05;
  std::string difference = NumbersDifference(reference, other, bf16);
  if (difference.empty())
    difference = TensorsDifference("the mean gradient", steps.mean_gradients, other.mean_gradients, how, tolerance);
  if (difference.empty())
    difference = TensorsDifference("the change", steps.changes, other.changes, how, 2 * tolerance);
  return difference;
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

std::string NameOf(const KernelCheckCase& c) {
  return c.architecture + (c.type == at::kBFloat16 ? " in bf16" : " in fp32") + " (d_kv " +
         std::to_string(c.shape.d_kv) + ", " + std::to_string(c.lengths.inputs) + " inputs, " +
         std::to_string(c.lengths.targets) + " targets, vocabulary " + std::to_string(c.shape.vocabulary) +
         ", dropout " + Json(c.dropout).dump() + ")";
}

// Whether LibTorch's operations drop what the kernels drop: attention's kernels, for bf16, draw by a hash of their own.
bool DropsAlike(const KernelCheckCase& c) { return c.dropout == 0 || c.type == at::kFloat; }

void CheckOne(const KernelCheckCase& c, const at::Device& device, const KernelCheckOptions& options,
              KernelCheck* check) {
  CheckedSteps plain, whole, kernels, graphs;
  const auto take = [&](CheckedSteps* steps, int64_t micro_batch, const StepGraphMaker& maker) {
    return [&, steps, micro_batch, maker] { *steps = TakeCheckedSteps(c, micro_batch, device, maker); };
  };
  const bool alike = DropsAlike(c);
  if (alike) options.plainly(take(&plain, kCheckedMicroBatch, nullptr));
  std::string error = ErrorOf([&] {
    if (!alike) options.by_kernels(take(&whole, kCheckedRows, nullptr));
    options.by_kernels(take(&kernels, kCheckedMicroBatch, nullptr));
  });
  const Reference by_operations{plain, "by LibTorch's operations"}, in_one{whole, "in one micro-batch"};
  if (error.empty()) error = Difference(alike ? by_operations : in_one, kernels, c.type);
  if (!error.empty()) {
    *check = {false, false, NameOf(c) + " by kernels: " + error};
    return;
  }
  if (!options.graphs || !check->graphs) return;
  error = ErrorOf([&] { options.by_kernels(take(&graphs, kCheckedMicroBatch, options.graphs)); });
  if (error.empty()) error = Difference({kernels, "operation by operation"}, graphs, c.type);
  if (error.empty()) return;
  check->graphs = false;
  check->why_not = NameOf(c) + " as a graph: " + error;
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

std::vector<KernelCheckCase> KernelCheckCases() {
  std::vector<KernelCheckCase> cases;
  const arch::Shape shape{4, 4, 128, 256, 2, 64, 512};  // the layers that every architecture takes
  for (const arch::Architecture* architecture : arch::Architectures()) {
    const std::string name(architecture->name());
    cases.push_back({.architecture = name, .shape = shape});
    cases.push_back({.architecture = name, .shape = shape, .type = at::kBFloat16, .optimizer = "adafactor"});
    if (name != "universal")  // drops nothing
      cases.push_back({.architecture = name, .shape = shape, .dropout = 0.1});
  }
  const KernelCheckCase deep{
      .architecture = "transformer", .shape = {2, 2, 128, 256, 2, 64, 512}, .lengths = {200, 130}};
  cases.push_back(deep);
  for (const int64_t depth : {32, 64, 128})
    for (const double dropout : {0.0, 0.5}) {  // much of it, so that other draws are other gradients
      cases.push_back(deep);
      cases.back().shape.d_kv = depth;
      cases.back().type = at::kBFloat16;
      cases.back().dropout = dropout;
    }
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
    cases.push_back({.architecture = "transformer", .shape = {1, 1, 64, 128, 1, 64, 33024}, .type = type});
  return cases;
}

KernelCheck CheckKernels(const at::Device& device, const KernelCheckOptions& options) {
  KernelCheck check{true, true, ""};
  for (const KernelCheckCase& c : options.cases) {
    CheckOne(c, device, options, &check);
    if (!check.kernels) return check;
  }
  return check;
}

KernelCheck CheckKernels(const at::Device& device) {
  std::string why_not;
  if (!kernels::LoadKernelTable(&why_not)) return {false, false, why_not};
  KernelCheckOptions options;
  options.cases = KernelCheckCases();
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
