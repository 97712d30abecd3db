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
// Of a tensor that is divided among ranks the kernels see a part only.
TEST_P(DeviceSteps, AdafactorAddsUpOverTheRanksOfADividedTensor) {
  int sums = 0;
  const at::Tensor value = at::ones({130, 140}).to(device_);
  Adafactor optimizer({}, {{"experts", value, /*parts=*/2, [&](const at::Tensor&) { ++sums; }}});
  ByKernels([&] {
    optimizer.Step({at::ones_like(value)}, 0.01);
    return 0;
  });
  EXPECT_EQ(sums, 1);
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
