// The operator count is taken from LibTorch's own profiler hooks while the model runs, so it knows nothing of arch/.
#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <gtest/gtest.h>

#include <atomic>

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

TEST(ModelParameters, AreWhatArchCounts) {
  const std::vector<arch::Shape> shapes{SmallShape(), *arch::FindSize("nano"), *arch::FindSize("tiny")};
  for (const ModelCase& c : ModelCases())
    for (const arch::Shape& shape : shapes) {
      const ModelSpec spec = c.Spec(shape);
      int64_t total = 0;
      for (const at::Tensor& p : MakeModel(spec, 0)->parameters()) total += p.numel();
      EXPECT_EQ(total, (*arch::FindArchitecture(c.architecture))->CountParameters(spec.shape, spec.options).total)
          << c.Name() << " d_model " << shape.d_model;
    }
}

}  // namespace
}  // namespace allometry::trainer
