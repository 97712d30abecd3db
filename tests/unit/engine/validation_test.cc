#include "worker/trainer/engine/validation.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

namespace allometry::trainer {
namespace {

// A target's negative log-likelihood is its row's first input. Keeps how many rows each pass had.
class FirstInput : public Model {
 public:
  at::Tensor Encode(const at::Tensor&) override { return {}; }
  at::Tensor Decode(const at::Tensor&, const at::Tensor&, const at::Tensor&) override { return {}; }
  std::unique_ptr<DecodeState> StartDecoding(const at::Tensor&, const at::Tensor&) override { return nullptr; }
  at::Tensor DecodeNext(DecodeState&, const at::Tensor&) override { return {}; }
  Loss ComputeLoss(const Batch&) override { return {}; }
  at::Tensor TokenNll(const Batch& batch) override {
    passes.push_back(batch.inputs_bs.size(0));
    return batch.inputs_bs.slice(1, 0, 1).to(at::kFloat).expand_as(batch.targets_bt);
  }
  std::vector<int64_t> passes;
};

// Row i reads i + 1 and has i + 1 targets, so that it matters which inputs go with which targets.
HostBatch Rows(int64_t first, int64_t rows) {
  HostBatch batch{at::zeros({rows, 1}, at::kLong), at::zeros({rows, 8}, at::kLong)};
  for (int64_t i = 0; i < rows; ++i) {
    batch.inputs_bs[i].fill_(first + i + 1);
    batch.targets_bt[i].slice(0, 0, first + i + 1).fill_(3);
  }
  return batch;
}

TEST(Validation, TakesAtMostThePassRowsAtOnceAndSwapsInputsWithinTheBatch) {
  for (const auto& [pass_rows, passes] : std::vector<std::pair<int64_t, std::vector<int64_t>>>{
           {32, {5, 2}}, {5, {5, 2}}, {2, {2, 2, 1, 2}}, {1, {1, 1, 1, 1, 1, 1, 1}}}) {
    const auto model = std::make_shared<FirstInput>();
    ModelState state(model, at::kCPU, /*bf16=*/false);
    ValidationSet set{.examples = 7, .batch_rows = 5, .pass_rows = pass_rows, .batch = Rows};
    const auto own = Validate(state, at::kCPU, set);
    EXPECT_EQ(model->passes, passes) << pass_rows;
    const auto other = Validate(state, at::kCPU, set, ValidationInputs::kOfAnotherRow);
    ASSERT_TRUE(own && other);
    EXPECT_EQ(own->tokens, 28);
    EXPECT_EQ(own->nll, 1 + 4 + 9 + 16 + 25 + 36 + 49) << pass_rows;
    EXPECT_EQ(other->nll, 1 * 5 + 2 * 1 + 3 * 2 + 4 * 3 + 5 * 4 + 6 * 7 + 7 * 6) << pass_rows;
  }
}

}  // namespace
}  // namespace allometry::trainer
