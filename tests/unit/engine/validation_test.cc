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
    if (batch.inputs_bs.size(0) > most_rows) TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory.");
    passes.push_back(batch.inputs_bs.size(0));
    return batch.inputs_bs.slice(1, 0, 1).to(at::kFloat).expand_as(batch.targets_bt);
  }
  std::vector<int64_t> passes;
  int64_t most_rows = 1000;  // that memory holds
};

// Row i reads i + 1 and has i + 1 targets, so that it matters which inputs go with which targets. Rows belong to two
// parts in turn; of each row's targets the first is text.
ValidationRows Rows(int64_t first, int64_t rows) {
  ValidationRows made{{at::zeros({rows, 1}, at::kLong), at::zeros({rows, 8}, at::kLong)},
                      std::vector<uint8_t>(static_cast<size_t>(rows * 8))};
  for (int64_t i = 0; i < rows; ++i) {
    made.batch.inputs_bs[i].fill_(first + i + 1);
    made.batch.targets_bt[i].slice(0, 0, first + i + 1).fill_(3);
    made.is_text[static_cast<size_t>(i * 8)] = 1;
    made.parts.push_back(static_cast<size_t>((first + i) % 2));
  }
  return made;
}

TEST(Validation, TakesAtMostThePassRowsAtOnceAndSwapsInputsWithinTheBatch) {
  for (const auto& [pass_rows, passes] : std::vector<std::pair<int64_t, std::vector<int64_t>>>{
           {32, {5, 2}}, {5, {5, 2}}, {2, {2, 2, 1, 2}}, {1, {1, 1, 1, 1, 1, 1, 1}}}) {
    const auto model = std::make_shared<FirstInput>();
    ModelState state(model, at::kCPU, at::kFloat);
    ValidationSet set{.examples = 7, .batch_rows = 5, .pass_rows = pass_rows, .batch = Rows, .parts = 2};
    set.unigram_nll = {0, 0, 0, 1.5};
    set.text_bytes = {0, 0, 0, 4};
    const auto own = Validate(state, at::kCPU, set);
    EXPECT_EQ(model->passes, passes) << pass_rows;
    const auto other = Validate(state, at::kCPU, set, ValidationInputs::kOfAnotherRow);
    ASSERT_TRUE(own && other);
    EXPECT_EQ(own->all.tokens, 28);
    EXPECT_EQ(own->all.nll, 1 + 4 + 9 + 16 + 25 + 36 + 49) << pass_rows;
    EXPECT_EQ(other->all.nll, 1 * 5 + 2 * 1 + 3 * 2 + 4 * 3 + 5 * 4 + 6 * 7 + 7 * 6) << pass_rows;
    ASSERT_EQ(own->parts.size(), 2u);
    EXPECT_EQ(own->parts[0].nll, 1 + 9 + 25 + 49) << pass_rows;
    EXPECT_EQ(own->parts[1].nll, 4 + 16 + 36) << pass_rows;
    EXPECT_EQ(own->parts[1].tokens, 2 + 4 + 6);
  }
}

TEST(Validation, TakesHalfWhereMemoryDoesNotHoldThePassRows) {
  const auto model = std::make_shared<FirstInput>();
  model->most_rows = 2;
  ModelState state(model, at::kCPU, at::kFloat);
  ValidationSet set{.examples = 7, .batch_rows = 5, .pass_rows = 32, .batch = Rows, .parts = 2};
  set.unigram_nll = {0, 0, 0, 1.5};
  set.text_bytes = {0, 0, 0, 4};
  const auto outcome = Validate(state, at::kCPU, set);
  ASSERT_TRUE(outcome);
  EXPECT_EQ(model->passes, (std::vector<int64_t>{2, 2, 1, 2})) << "5 rows, then 3, then 2 from there on";
  EXPECT_EQ(outcome->all.nll, 1 + 4 + 9 + 16 + 25 + 36 + 49);
  EXPECT_EQ(outcome->parts[1].nll, 4 + 16 + 36);
  model->most_rows = 0;
  EXPECT_THROW(Validate(state, at::kCPU, set), c10::OutOfMemoryError);
}

// Text targets alone count for text_loss and bits per byte: one a row here, of four bytes.
TEST(Validation, BitsPerByteAreOfTheTextTargets) {
  ModelState state(std::make_shared<FirstInput>(), at::kCPU, at::kFloat);
  ValidationSet set{.examples = 7, .batch_rows = 5, .pass_rows = 2, .batch = Rows, .parts = 2};
  set.unigram_nll = {0, 0, 0, 1.5};
  set.text_bytes = {0, 0, 0, 4};
  const auto outcome = Validate(state, at::kCPU, set);
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->all.text_tokens, 7);
  EXPECT_EQ(outcome->all.text_bytes, 28);
  EXPECT_EQ(outcome->all.text_loss(), 4) << "(1 + ... + 7) / 7";
  EXPECT_EQ(outcome->all.unigram_loss(), 1.5);
  EXPECT_NEAR(outcome->all.bits_per_byte(), 1.4426950408889634, 1e-12) << "28 nats over 28 bytes: one nat is 1.44 bits";
  EXPECT_NEAR(outcome->parts[1].bits_per_byte(), 1.4426950408889634, 1e-12) << "2 + 4 + 6 nats over 12 bytes";
  EXPECT_NEAR(outcome->parts[0].bits_per_byte(), 1.4426950408889634, 1e-12) << "1 + 3 + 5 + 7 nats over 16 bytes";
  EXPECT_EQ(ValidationSums().bits_per_byte(), 0) << "of no text";
}

}  // namespace
}  // namespace allometry::trainer
