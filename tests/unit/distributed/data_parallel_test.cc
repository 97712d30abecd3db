// One step of every architecture, by one rank and by several that divide its batch.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/unit/distributed/ranks.h"
#include "tests/unit/models/model_cases.h"
#include "worker/trainer/distributed/gradient_reducer.h"
#include "worker/trainer/engine/model_state.h"
#include "worker/trainer/layers/row_random.h"

namespace allometry::trainer {
namespace {

constexpr int64_t kRows = 7, kInputs = 20, kTargets = 9;
const arch::Shape kShape{2, 2, 16, 24, 2, 8, 64};

Batch WholeBatch() {
  const at::Tensor inputs = at::arange(kRows * kInputs).mul(7).remainder(60).add(3).view({kRows, kInputs}).clone();
  const at::Tensor targets = at::arange(kRows * kTargets).mul(11).remainder(60).add(3).view({kRows, kTargets}).clone();
  for (int64_t r = 0; r < kRows; ++r) {  // padding that differs from row to row
    inputs[r].slice(0, kInputs - r).zero_();
    targets[r].slice(0, kTargets - r % 4).zero_();
  }
  return {inputs, targets};
}

struct Outcome {
  double loss = 0;
  std::vector<at::Tensor> gradients;
};

// The rows first ... first + count - 1 of a step, `micro` at once. Sums of the targets' likelihoods.
Outcome Step(const ModelCase& c, at::ScalarType type, int64_t first, int64_t count, int64_t micro,
             GradientReducer* reducer, ModelState& state) {
  if (reducer) state.ReduceOverRanks(reducer);
  state.model().train();
  state.model().BeginStep(5);
  const Batch batch = WholeBatch();
  Outcome outcome;
  for (int64_t row = 0; row < count; row += micro) {
    const int64_t n = std::min(micro, count - row);
    if (row + n == count) state.BeginLastPass();
    BeginRows(3, 5, first + row, n);
    const Loss loss = state.model().ComputeLoss(
        {batch.inputs_bs.narrow(0, first + row, n), batch.targets_bt.narrow(0, first + row, n)});
    (loss.side.auxiliary.defined() ? loss.nll_sum + loss.side.auxiliary : loss.nll_sum).backward();
    state.CollectGradients();
    outcome.loss += loss.nll_sum.item<double>();
  }
  for (const at::Tensor& gradient : state.Gradients())
    outcome.gradients.push_back(gradient.defined() ? gradient.to(at::kDouble).clone() : at::Tensor());
  return outcome;
}

std::unique_ptr<ModelState> NewState(const ModelCase& c, at::ScalarType type) {
  return std::make_unique<ModelState>(MakeModel(c.Spec(kShape, /*dropout=*/0.1), 17), at::kCPU, type);
}

double Difference(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].defined(), b[i].defined()) << i;
    if (!a[i].defined()) continue;
    difference += at::square(a[i] - b[i]).sum().item<double>();
    size += at::square(a[i]).sum().item<double>();
  }
  return std::sqrt(difference / size);
}

class DataParallel : public ::testing::TestWithParam<ModelCase> {};

// Loss and gradients relative to the whole batch's: float64 1e-9 and 1e-9, float32 1e-5 and 1e-4. bfloat16 rounds
// activations row by row, but each pass's gradient of a weight too: 2 %.
TEST_P(DataParallel, RanksAddUpToOne) {
  at::set_num_threads(1);
  const std::map<at::ScalarType, std::pair<double, double>> tolerances{
      {at::kDouble, {1e-9, 1e-9}}, {at::kFloat, {1e-5, 1e-4}}, {at::kBFloat16, {1e-3, 2e-2}}};
  for (const auto& [type, tolerance] : tolerances) {
    auto state = NewState(GetParam(), type);
    const Outcome whole = Step(GetParam(), type, 0, kRows, kRows, nullptr, *state);
    for (int ranks : {2, 3}) {
      std::vector<Outcome> outcomes(static_cast<size_t>(ranks));
      InGroup(ranks, [&](RankGroup& group) {
        auto own = NewState(GetParam(), type);
        std::vector<at::Tensor> values;
        for (const TrainedTensor& tensor : own->masters()) values.push_back(tensor.value);
        GradientReducer reducer(group.tensors(), values, {.first_bucket_bytes = 2000, .bucket_bytes = 10'000});
        const RankGroup::Rows rows = group.RowsOf(kRows);
        Outcome outcome = Step(GetParam(), type, rows.first, rows.count, ranks == 2 ? 2 : kRows, &reducer, *own);
        outcome.loss = group.Sum({outcome.loss})[0];
        outcomes[static_cast<size_t>(group.rank())] = std::move(outcome);
        own.reset();
      });
      for (const Outcome& outcome : outcomes) {
        EXPECT_NEAR(outcome.loss, whole.loss, tolerance.first * whole.loss) << type << " by " << ranks;
        EXPECT_LE(Difference(whole.gradients, outcome.gradients), tolerance.second) << type << " by " << ranks;
        EXPECT_EQ(Difference(outcomes[0].gradients, outcome.gradients), 0) << "not the same bits on every rank";
      }
    }
  }
}

// Dropout and jitter are drawn by row: micro-batches change nothing but the order of sums.
TEST_P(DataParallel, MicroBatchesDrawTheSame) {
  at::set_num_threads(1);
  auto a = NewState(GetParam(), at::kDouble), b = NewState(GetParam(), at::kDouble);
  const Outcome whole = Step(GetParam(), at::kDouble, 0, kRows, kRows, nullptr, *a);
  const Outcome parts = Step(GetParam(), at::kDouble, 0, kRows, 2, nullptr, *b);
  EXPECT_NEAR(whole.loss, parts.loss, 1e-9 * whole.loss);
  EXPECT_LE(Difference(whole.gradients, parts.gradients), 1e-9);
}

INSTANTIATE_TEST_SUITE_P(Architectures, DataParallel, ::testing::ValuesIn(ModelCases()), [](const auto& info) {
  std::string name = info.param.Name();
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
});

}  // namespace
}  // namespace allometry::trainer
