// A step copies no weight matrix that it need not copy: none in fp32, and in bf16 each rounded one once, from its
// master.
#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/unit/models/model_cases.h"
#include "worker/trainer/engine/model_state.h"

namespace allometry::trainer {
namespace {

// What the running step copied of the memory that it watches: operator and shape, once for each copy.
std::mutex copies_mutex;
std::set<const void*> watched;
std::multiset<std::string> copies;

const void* MemoryOf(const at::Tensor& tensor) { return tensor.defined() ? tensor.storage().data() : nullptr; }

std::string Copy(const std::string& name, const at::Tensor& source) {
  std::ostringstream text;
  text << name << ' ' << source.sizes();
  return text.str();
}

std::unique_ptr<at::ObserverContext> NoteCopy(const at::RecordFunction& record) {
  const std::string name = record.name();
  const auto inputs = record.inputs();
  std::vector<at::Tensor> sources;
  if (name == "aten::copy_" && inputs.size() > 1)
    sources.push_back(inputs[1].toTensor());
  else if (name == "aten::cat" || name == "aten::stack")
    sources = inputs[0].toTensorVector();
  const std::lock_guard lock(copies_mutex);
  for (const at::Tensor& source : sources)
    if (watched.contains(MemoryOf(source))) copies.insert(Copy(name, source));
  return nullptr;
}

std::multiset<std::string> CopiesOf(const std::set<const void*>& memory, const std::function<void()>& work) {
  watched = memory;
  copies.clear();
  const at::CallbackHandle handle = at::addGlobalCallback(at::RecordFunctionCallback(&NoteCopy).needsInputs(true));
  work();
  at::removeCallback(handle);
  return copies;
}

// Tables of a few numbers a channel or head, which the loops take by position and in float32.
bool IsTable(const ModelCase& c, const std::string& name) {
  return name.ends_with("relative_attention_bias.weight") || name.ends_with("depthwise.weight") ||
         (c.architecture == "lconv" && name.ends_with("kernel.weight"));
}

// The memory of all other weights, the model's own and the masters.
std::set<const void*> WeightMemory(const ModelCase& c, ModelState& state) {
  std::set<const void*> memory;
  for (const auto& item : state.model().named_parameters())
    if (!IsTable(c, item.key())) memory.insert(MemoryOf(item.value()));
  for (const TrainedTensor& master : state.masters())
    if (!IsTable(c, master.name)) memory.insert(MemoryOf(master.value));
  return memory;
}

Batch TwoRows() {
  return {Ids({5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0}, 2), Ids({11, 12, 13, 14, 15, 16, 17, 18, 0, 0}, 2)};
}

std::multiset<std::string> CopiesOfAStep(const ModelCase& c, ModelState& state) {
  auto optimizer = *MakeOptimizer({}, state.masters());
  const Batch batch = TwoRows();
  state.model().train();
  const auto step = [&] {
    state.model().BeginStep(1);
    state.model().ComputeLoss(batch).nll_sum.backward();
    state.CollectGradients();
    optimizer->Step(state.Gradients(), 1e-3);
    state.ClearGradients();
    state.PublishWeights();
  };
  return CopiesOf(WeightMemory(c, state), step);
}

TEST(WeightCopies, AStepInFloat32CopiesNone) {
  for (const ModelCase& c : ModelCases()) {
    ModelState state(MakeModel(c.Spec(SmallShape()), 1), at::kCPU, at::kFloat);
    EXPECT_EQ(CopiesOfAStep(c, state), std::multiset<std::string>{}) << c.Name();
  }
}

// A gradient in another layout is copied when it is accumulated; experts' gradients are most of a model.
TEST(WeightCopies, GradientsComeInTheLayoutOfTheirWeights) {
  for (const ModelCase& c : ModelCases()) {
    const auto model = MakeModel(c.Spec(SmallShape()), 1);
    model->train();
    std::set<std::string> other_layout;
    for (const auto& item : model->named_parameters())
      if (!IsTable(c, item.key()))
        item.value().register_hook([&other_layout, name = item.key()](const at::Tensor& gradient) {
          if (!gradient.is_contiguous()) other_layout.insert(name);
        });
    model->ComputeLoss(TwoRows()).nll_sum.backward();
    EXPECT_EQ(other_layout, std::set<std::string>{}) << c.Name();
  }
}

// What `all` holds beyond `needed`.
std::vector<std::string> Beyond(const std::multiset<std::string>& all, const std::multiset<std::string>& needed) {
  std::vector<std::string> rest;
  std::ranges::set_difference(all, needed, std::back_inserter(rest));
  return rest;
}

TEST(WeightCopies, AStepInBfloat16CopiesEachRoundedWeightOnce) {
  for (const ModelCase& c : ModelCases()) {
    ModelState state(MakeModel(c.Spec(SmallShape()), 1), at::kCPU, at::kBFloat16);
    std::multiset<std::string> rounded;
    for (const auto& item : state.model().named_parameters())
      if (item.value().scalar_type() == at::kBFloat16 && !IsTable(c, item.key()))
        rounded.insert(Copy("aten::copy_", item.value()));
    const std::multiset<std::string> all = CopiesOfAStep(c, state);
    EXPECT_GT(rounded.size(), 0u);
    EXPECT_EQ(Beyond(rounded, all), std::vector<std::string>{}) << c.Name();
    EXPECT_EQ(Beyond(all, rounded), std::vector<std::string>{}) << c.Name();
  }
}

TEST(WeightCopies, TheObserverSeesThem) {
  const at::Tensor weight = at::ones({3, 4});
  const auto work = [&] {
    weight.clone();
    weight.t().contiguous();
    weight.to(at::kBFloat16);
    at::cat({weight, at::ones({1, 4})});
    weight.contiguous();  // is already
    at::mm(weight, weight.t());
  };
  EXPECT_EQ(CopiesOf({MemoryOf(weight)}, work),
            (std::multiset<std::string>{"aten::cat [3, 4]", "aten::copy_ [3, 4]", "aten::copy_ [3, 4]",
                                        "aten::copy_ [4, 3]"}));
}

}  // namespace
}  // namespace allometry::trainer
