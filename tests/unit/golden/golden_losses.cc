#include "tests/unit/golden/golden_losses.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <stdexcept>

#include "arch/architecture.h"
#include "worker/trainer/engine/model_state.h"
#include "worker/trainer/layers/row_random.h"
#include "worker/trainer/models/model.h"

namespace allometry::trainer {
namespace {

constexpr int64_t kSteps = 50, kRows = 4, kInputs = 24, kTargets = 12, kVocabulary = 256;
// Low: a ReLU unit that rounding turns on or off moves what follows in proportion to it (see golden_losses_test.cc).
// Lower still where one block is applied twelve times in a stack, each time on what the last one made.
double Rate(const std::string& architecture) { return architecture == "universal" ? 0.00005 : 0.0002; }

uint64_t Random(uint64_t x) {  // splitmix64: the same on every machine and in every release
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Targets are the inputs under a fixed map and an end mark, from thirty ids; odd rows are shorter and padded.
Batch BatchOf(int64_t step) {
  Batch batch{at::zeros({kRows, kInputs}, at::kLong), at::zeros({kRows, kTargets}, at::kLong)};
  auto inputs = batch.inputs_bs.accessor<int64_t, 2>();
  auto targets = batch.targets_bt.accessor<int64_t, 2>();
  for (int64_t b = 0; b < kRows; ++b) {
    const int64_t inputs_here = b % 2 == 0 ? kInputs : kInputs - 7, targets_here = b % 2 == 0 ? kTargets : kTargets - 5;
    for (int64_t s = 0; s < inputs_here; ++s) {
      const int64_t id = (step * kRows + b) * kInputs + s;
      inputs[b][s] = 2 + static_cast<int64_t>(Random(static_cast<uint64_t>(id)) % 30);
    }
    for (int64_t t = 0; t + 1 < targets_here; ++t) targets[b][t] = 2 + (inputs[b][t] * 7 + 3) % (kVocabulary - 2);
    targets[b][targets_here - 1] = 1;
  }
  return batch;
}

const arch::Architecture& Find(const std::string& architecture) {
  auto found = arch::FindArchitecture(architecture);
  if (!found) throw std::invalid_argument(found.error().message);
  return **found;
}

ModelSpec Spec(const std::string& architecture) {
  ModelSpec spec;
  spec.architecture = architecture;
  spec.shape = *arch::FindSize("nano");
  spec.shape.vocabulary = kVocabulary;
  spec.options = *arch::CompleteOptions(Find(architecture), common::Json::object());
  spec.lengths = {kInputs, kTargets};
  if (spec.options.contains("input_length")) spec.options["input_length"] = kInputs;  // mixer: a size of the model
  if (spec.options.contains("target_length")) spec.options["target_length"] = kTargets;
  return spec;
}

}  // namespace

std::vector<double> GoldenRun(const std::string& architecture) {
  at::set_num_threads(1);
  ModelState state(MakeModel(Spec(architecture), /*seed=*/17), at::kCPU, at::kFloat);
  auto optimizer = MakeOptimizer({}, state.masters());
  if (!optimizer) throw std::runtime_error(optimizer.error().message);
  state.model().train();
  std::vector<double> losses;
  for (int64_t step = 1; step <= kSteps; ++step) {
    BeginRows(/*seed=*/17, step, 0, kRows);
    state.model().BeginStep(step);
    const Batch batch = BatchOf(step);
    const Loss loss = state.model().ComputeLoss(batch);
    const at::Tensor mean = loss.nll_sum / (batch.targets_bt != 0).sum();
    const bool has_more = loss.side.auxiliary.defined();
    (has_more ? mean + loss.side.auxiliary / static_cast<double>(kRows) : mean).backward();
    (*optimizer)->Step(state.Gradients(), Rate(architecture));
    state.ClearGradients();
    losses.push_back(mean.item<double>());
  }
  return losses;
}

std::filesystem::path GoldenPath(const std::filesystem::path& source_folder, const std::string& architecture) {
  return source_folder / "tests" / "golden" / "losses" / (architecture + ".json");
}

common::Json GoldenFile(const std::string& architecture, const std::vector<double>& losses) {
  return {{"architecture", architecture},
          {"numerics_version", Find(architecture).numerics_version()},
          {"options", Spec(architecture).options},
          {"losses", losses}};
}

}  // namespace allometry::trainer
