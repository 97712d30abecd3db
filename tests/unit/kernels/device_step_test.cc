// The optimisers by the kernels, emulated on a CPU's tensors and on a GPU's, against their own CPU way.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/unit/kernels/tensor_case.h"
#include "worker/trainer/optim/adafactor.h"
#include "worker/trainer/optim/adamw.h"

namespace allometry::trainer {
namespace {

class DeviceSteps : public TensorKernelTest {
 protected:
  // Values, steps and second moments after three steps, one of which leaves a tensor out.
  template <typename Kind>
  std::map<std::string, at::Tensor> Train(at::Device device) {
    at::manual_seed(4);
    std::vector<TrainedTensor> tensors;
    for (const std::vector<int64_t>& sizes :
         std::vector<std::vector<int64_t>>{{130, 257}, {7}, {2, 128, 128}, {300, 5}})
      tensors.push_back({"t" + std::to_string(tensors.size()), at::randn(sizes).mul_(0.3).to(device)});
    Kind optimizer({.weight_decay = 0.1}, tensors);
    for (int step = 0; step < 3; ++step) {
      std::vector<at::Tensor> gradients;
      for (const TrainedTensor& tensor : tensors) gradients.push_back(at::randn(tensor.value.sizes()).to(device));
      if (step == 1) gradients[2] = at::Tensor();
      optimizer.Step(gradients, 0.01);
    }
    std::map<std::string, at::Tensor> out = optimizer.State();
    for (const TrainedTensor& tensor : tensors) out[tensor.name] = tensor.value;
    return out;
  }

  template <typename Kind>
  void ExpectEqualWays() {
    const auto want = Train<Kind>(at::kCPU);
    const auto got = ByKernels([&] { return Train<Kind>(device_); });
    ASSERT_EQ(got.size(), want.size());
    for (const auto& [name, tensor] : want) {
      const at::Tensor a = got.at(name).to(at::kCPU, at::kDouble), b = tensor.to(at::kDouble);
      EXPECT_LE((a - b).abs().max().item<double>(), 1e-5 * b.abs().max().item<double>()) << name;
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Kernels, DeviceSteps, ::testing::Bool(), TensorKernelName);

TEST_P(DeviceSteps, Adafactor) { ExpectEqualWays<Adafactor>(); }
// One exchange a step, in which the other rank, which has the same, doubles the totals: the step is that of one tensor
// with each value twice. What is not divided takes its own step.
TEST_P(DeviceSteps, AdafactorAddsUpOverTheRanksOfADividedTensor) {
  at::manual_seed(5);
  const at::Tensor half = at::randn({2, 130, 140}), other = at::randn({130, 140}), whole = at::cat({half, half});
  const at::Tensor half_gradient = at::randn_like(half), other_gradient = at::randn_like(other);
  const at::Tensor value = half.to(device_, /*non_blocking=*/false, /*copy=*/true), shared = other.clone().to(device_);
  int sums = 0;
  ByKernels([&] {
    const auto twice = [&](const at::Tensor& tensor) {
      EXPECT_EQ(tensor.sizes(), (std::vector<int64_t>{1, 2})) << "another rank has other tensors beside it";
      ++sums;
      at::Tensor(tensor).mul_(2);
    };
    Adafactor optimizer({}, {{"shared", shared}, {"experts", value, /*parts=*/2, twice}});
    EXPECT_TRUE(optimizer.UsesKernels());
    optimizer.Step({other_gradient.to(device_), half_gradient.to(device_)}, 0.01);
    return 0;
  });
  EXPECT_EQ(sums, 1);
  Adafactor plain({}, {{"shared", other}, {"experts", whole}});
  plain.Step({other_gradient, at::cat({half_gradient, half_gradient})}, 0.01);
  EXPECT_TRUE(at::allclose(value.cpu(), whole.slice(0, 0, 2), /*rtol=*/1e-5, /*atol=*/1e-6));
  EXPECT_TRUE(at::allclose(shared.cpu(), other, /*rtol=*/1e-5, /*atol=*/1e-6));
}

// Of four tensors this rank counts two, and the other rank adds 5 to the squares.
TEST_P(DeviceSteps, TheNormIsThatOfAllRanks) {
  ByKernels([&] {
    std::vector<TrainedTensor> tensors;
    std::vector<at::Tensor> gradients;
    for (const double size : {2, 3, 4, 5}) {
      tensors.push_back({std::to_string(tensors.size()), at::zeros({1}).to(device_)});
      gradients.push_back(at::full({1}, size).to(device_));
    }
    const auto add_five = [](const at::Tensor& squares) { at::Tensor(squares).add_(5); };
    for (const double limit : {0.0, 2.5, 50.0}) {
      AdamW optimizer({.beta1 = 0, .beta2 = 0}, tensors);
      optimizer.SumNormOverRanks({true, false, true, false}, add_five);
      optimizer.MeasureNorm(limit);
      optimizer.Step(gradients, 0);
      EXPECT_FLOAT_EQ(optimizer.norm().item<float>(), 5);  // sqrt(4 + 16 + 5)
      const float scale = limit == 2.5 ? 0.5f : 1.0f;
      EXPECT_FLOAT_EQ(optimizer.State().at("1.first_moment").item<float>(), 3 * scale);
    }
    // A gradient that is no number is left as it is, and so are the others.
    gradients[0].fill_(std::nan(""));
    AdamW optimizer({.beta1 = 0, .beta2 = 0}, tensors);
    optimizer.SumNormOverRanks({true, false, true, false}, add_five);
    optimizer.MeasureNorm(/*limit=*/1);
    optimizer.Step(gradients, 0);
    EXPECT_TRUE(std::isnan(optimizer.norm().item<float>()));
    EXPECT_FLOAT_EQ(optimizer.State().at("1.first_moment").item<float>(), 3);
    return 0;
  });
}

// While a graph is recorded nothing is copied: the list of addresses comes after it, and is the graph's own.
TEST_P(DeviceSteps, TheListOfARecordedStepComesAfterwards) {
  const at::Tensor value = at::ones({8, 8}).to(device_), gradient = at::ones_like(value), other = at::ones_like(value);
  ByKernels([&] {
    DeviceStep step(*table_, {{.value = value,
                               .first_moment = at::zeros_like(value),
                               .second_moment = at::zeros_like(value),
                               .shape = {.columns = 64}}});
    const auto gradient_of = [](const at::Tensor& list) {
      return static_cast<const kernels::OptimizerTensor*>(list.cpu().data_ptr())->gradient;
    };
    step.Take({gradient});
    step.BeginCapture();
    step.Take({other});
    const void* recorded = step.work().tensors;
    const at::Tensor list = step.EndCapture();
    EXPECT_EQ(list.data_ptr(), recorded);
    EXPECT_EQ(gradient_of(list), other.data_ptr());
    step.Take({gradient});
    EXPECT_NE(step.work().tensors, recorded);
    EXPECT_EQ(gradient_of(list), other.data_ptr()) << "the graph still reads it";
    return 0;
  });
}

TEST_P(DeviceSteps, AdamW) { ExpectEqualWays<AdamW>(); }

}  // namespace
}  // namespace allometry::trainer
