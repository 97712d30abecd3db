// The operator count is taken from LibTorch's own profiler hooks while the model runs, so it knows nothing of arch/.
#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>

#include "tests/unit/models/model_cases.h"

namespace allometry::trainer {
namespace {

std::atomic<int64_t> counted_flops{0};

// FLOPs of a product of the last two dimensions of a [.., m, k] with [.., k, n].
int64_t ProductFlops(const c10::IValue& a, const c10::IValue& b) {
  return 2 * a.toTensor().numel() * b.toTensor().size(-1);
}

std::unique_ptr<at::ObserverContext> CountOperator(const at::RecordFunction& record) {
  const std::string name = record.name();
  const auto inputs = record.inputs();
  if (name == "aten::mm" || name == "aten::bmm")
    counted_flops += ProductFlops(inputs[0], inputs[1]);
  else if (name == "aten::addmm" || name == "aten::addmm_" || name == "aten::baddbmm" || name == "aten::baddbmm_")
    counted_flops += ProductFlops(inputs[1], inputs[2]);
  else if (name == "allometry::light_convolution")
    counted_flops += 2 * inputs[0].toTensor().numel() * inputs[1].toTensor().size(0);
  else if (name == "allometry::dynamic_convolution")
    counted_flops += 2 * inputs[0].toTensor().numel() * inputs[1].toTensor().size(2);
  else if (name.find("conv") != std::string::npos || name == "aten::dot" || name == "aten::mv")
    ADD_FAILURE() << "an operator that is not counted here: " << name;
  return nullptr;
}

class FlopCounter {
 public:
  FlopCounter() {
    counted_flops = 0;
    handle_ = at::addGlobalCallback(at::RecordFunctionCallback(&CountOperator).needsInputs(true));
  }
  ~FlopCounter() { at::removeCallback(handle_); }
  int64_t flops() const { return counted_flops; }

 private:
  at::CallbackHandle handle_;
};

int64_t CountForward(Model& model, const arch::Shape& shape, arch::Lengths n, int64_t batch) {
  at::NoGradGuard no_grad;
  const at::Tensor inputs = at::randint(2, shape.vocabulary, {batch, n.inputs}, at::kLong);
  const at::Tensor targets = at::randint(2, shape.vocabulary, {batch, n.targets}, at::kLong);
  FlopCounter counter;
  model.Decode(model.Encode(inputs), inputs, ShiftRight(targets));
  return counter.flops();
}

TEST(ModelFlops, OperatorCountIsWhatArchSaysToTheUnit) {
  const std::vector<arch::Shape> shapes{SmallShape(), {1, 2, 24, 40, 3, 8, 70}, {3, 1, 8, 12, 1, 4, 20}};
  const std::vector<arch::Lengths> lengths{{7, 5}, {20, 3}, {13, 11}, {70, 130}};
  for (const ModelCase& c : ModelCases())
    for (const arch::Shape& shape : shapes) {
      ModelSpec spec = c.Spec(shape);
      const arch::Architecture& costs = **arch::FindArchitecture(c.architecture);
      for (const arch::Lengths n : lengths) {
        spec.lengths = n;
        EXPECT_EQ(CountForward(*MakeModel(spec, 1), shape, n, 2),
                  2 * costs.CountFlops(spec.shape, spec.options, n).forward)
            << c.Name() << " d_model " << shape.d_model << " lengths " << n.inputs << '/' << n.targets;
      }
    }
}

TEST(ModelFlops, TheCounterSeesAProduct) {
  FlopCounter counter;
  at::mm(at::ones({3, 4}), at::ones({4, 5}));
  EXPECT_EQ(counter.flops(), 2 * 3 * 4 * 5);
}

// Builds models of shapes alone while it lives: every tensor that is made has sizes and no memory.
class ShapesOnly {
 private:
  // This guard puts everything back; the one for included keys leaves the backend's bit behind.
  c10::impl::ForceDispatchKeyGuard guard_{c10::DispatchKeySet(c10::DispatchKey::Meta), c10::DispatchKeySet()};
};

// Of the built model, by the names of its tensors: token tables are no part of the second, and of a stack of experts a
// token uses one.
arch::ParameterCount CountBuilt(const ModelSpec& spec) {
  const ShapesOnly shapes_only;
  arch::ParameterCount count;
  for (const auto& item : MakeModel(spec, 0)->named_parameters()) {
    const std::string& name = item.key();
    const int64_t size = item.value().numel();
    count.total += size;
    if (!name.starts_with("shared") && !name.starts_with("lm_head")) count.non_embedding += size;
    count.active += name.find(".experts.") != std::string::npos ? size / item.value().size(0) : size;
  }
  return count;
}

void ExpectCounts(const ModelCase& c, const ModelSpec& spec, const std::string& size) {
  const arch::ParameterCount built = CountBuilt(spec),
                             counted =
                                 (*arch::FindArchitecture(c.architecture))->CountParameters(spec.shape, spec.options);
  EXPECT_EQ(built.total, counted.total) << c.Name() << ' ' << size;
  EXPECT_EQ(built.non_embedding, counted.non_embedding) << c.Name() << ' ' << size;
  EXPECT_EQ(built.active, counted.active) << c.Name() << ' ' << size;
}

TEST(ModelParameters, AreWhatArchCounts) {
  for (const ModelCase& c : ModelCases()) ExpectCounts(c, c.Spec(SmallShape()), "small");
}

// Every architecture at every size of the grid, to xxl's 11 billion and Switch's hundreds, and with every option at the
// sizes that take it.
TEST(ModelParameters, AreWhatArchCountsAtEverySizeOfTheGrid) {
  std::map<std::string, size_t> sizes_of_defaults;
  for (const ModelCase& c : ModelCases())
    for (const arch::Size& size : arch::Sizes()) {
      ModelSpec spec = c.Spec(SmallShape());
      spec.shape = size.shape;
      if (!(*arch::FindArchitecture(c.architecture))->CheckShape(spec.shape, spec.options)) continue;
      ExpectCounts(c, spec, std::string(size.name));
      sizes_of_defaults[c.architecture] += c.given.is_null();
    }
  EXPECT_EQ(sizes_of_defaults.size(), arch::Architectures().size());
  for (const auto& [name, sizes] : sizes_of_defaults) EXPECT_EQ(sizes, arch::Sizes().size()) << name;
}

// That building shapes alone builds what building does.
TEST(ModelParameters, AreThoseOfTheModelWithValues) {
  for (const ModelCase& c : ModelCases()) {
    const ModelSpec spec = c.Spec(*arch::FindSize("nano"));
    int64_t total = 0;
    for (const at::Tensor& p : MakeModel(spec, 0)->parameters()) total += p.is_cpu() ? p.numel() : 0;
    EXPECT_EQ(total, CountBuilt(spec).total) << c.Name();
  }
}

}  // namespace
}  // namespace allometry::trainer
