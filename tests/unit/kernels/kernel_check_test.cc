#include "worker/trainer/engine/kernel_check.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/engine/kept_work.h"
#include "tests/unit/kernels/tensor_case.h"

namespace allometry::trainer {
namespace {

using ::testing::HasSubstr;

KernelCheckOptions OptionsFor(const kernels::KernelTable& table) {
  KernelCheckOptions options;
  options.architectures = {"transformer", "universal"};
  options.shape = {4, 4, 8, 16, 1, 8, 40};
  options.plainly = [](const std::function<void()>& f) { f(); };
  options.by_kernels = [&table](const std::function<void()>& f) {
    const kernels::ForceKernels force(table);
    f();
  };
  options.graphs = [] { return std::make_unique<KeptWork>(); };
  return options;
}

TEST(KernelCheckTest, RightKernelsPass) {
  const kernels::KernelTable table = kernels::MakeKernelTable();
  KernelCheckOptions options = OptionsFor(table);
  const KernelCheck check = CheckKernels(at::kCPU, options);
  EXPECT_TRUE(check.kernels) << check.why_not;
  EXPECT_TRUE(check.graphs) << check.why_not;
  EXPECT_EQ(check.why_not, "");
}

// Each wrong kernel is noticed by what it makes wrong.
kernels::KernelTable right;
TEST(KernelCheckTest, WrongKernelsAreNamedByWhatTheySpoil) {
  right = kernels::MakeKernelTable();
  using Kernels = kernels::KernelTable;
  const std::vector<std::pair<std::string, std::function<void(Kernels&)>>> faults = {
      {"loss of step 1",
       [](Kernels& t) { t.norm_forward = [](kernels::Stream, kernels::DataType, const kernels::NormForwardArgs&) {}; }},
      {"gradient norm of step 1",
       [](Kernels& t) {
         t.norm_backward = [](kernels::Stream stream, kernels::DataType type, const kernels::NormBackwardArgs& args) {
           kernels::NormBackwardArgs doubled = args;
           right.norm_backward(stream, type, doubled);
           auto* dx = static_cast<float*>(doubled.dx);
           if (type == kernels::DataType::kFloat32)
             for (int64_t i = 0; i < args.rows * args.d; ++i) dx[i] *= 2;
         };
       }},
      {"loss of step 2", [](Kernels& t) {
         t.adamw = [](kernels::Stream stream, kernels::DataType type, const kernels::AdamWArgs& args) {
           kernels::AdamWArgs decayed = args;
           decayed.weight_decay = 100;
           right.adamw(stream, type, decayed);
         };
       }}};
  for (const auto& [what, spoil] : faults) {
    Kernels table = right;
    spoil(table);
    const KernelCheck check = CheckKernels(at::kCPU, OptionsFor(table));
    EXPECT_FALSE(check.kernels) << what;
    EXPECT_FALSE(check.graphs) << what;
    EXPECT_THAT(check.why_not, HasSubstr("transformer in fp32 by kernels: " + what));
  }
}

TEST(KernelCheckTest, WithoutGraphsKernelsMayBeRight) {
  struct Forgets : KeptWork {
    void Launch() override {}
  };
  const kernels::KernelTable table = kernels::MakeKernelTable();
  KernelCheckOptions options = OptionsFor(table);
  options.architectures = {"transformer"};
  options.graphs = [] { return std::make_unique<Forgets>(); };
  const KernelCheck check = CheckKernels(at::kCPU, options);
  EXPECT_TRUE(check.kernels) << check.why_not;
  EXPECT_FALSE(check.graphs);
  EXPECT_THAT(check.why_not, HasSubstr("transformer in fp32 as a graph: "));
}

}  // namespace
}  // namespace allometry::trainer
