#include "worker/trainer/data/batches.h"

#include <gmock/gmock.h>

#include <map>
#include <set>

#include "tests/unit/trainer_data/data_fixture.h"
#include "tests/unit/trainer_data/made_up_wordnet.h"
#include "worker/trainer/data/prepare.h"

namespace allometry::trainer {
namespace {

using common::Json;
using ::testing::HasSubstr;
using Row = std::vector<int64_t>;

class BatchesTest : public DataFixture {
 protected:
  void SetUp() override {
    DataFixture::SetUp();
    std::string text = MadeUpText(400, 30, 1);
    for (int i = 0; i < 40; ++i) text += "noun verb adjective adverb true false : " + std::to_string(i) + "\n\n";
    Json run = TextRun(Write("text.txt", text), 500);
    Json files = {
        Manifest(Write("data.noun", MadeUpSynsets('n', 1, 3))), Manifest(Write("data.verb", MadeUpSynsets('v', 2, 3))),
        Manifest(Write("data.adj", MadeUpSynsets('s', 3, 1))), Manifest(Write("data.adv", MadeUpSynsets('r', 4, 1)))};
    run["tasks"] = {{{"name", "wordnet_pos"}, {"files", files}}, {{"name", "wordnet_wic"}, {"files", files}}};
    const common::Status status = Prepare(run, execution_, dir_ / "data", [](const PrepareProgress&) { return true; });
    ASSERT_TRUE(status.ok()) << status.error().message;
    data_ = std::make_unique<Dataset>(std::move(*Dataset::Open(dir_ / "data")));
  }

  PretrainBatches Pretrain(uint64_t seed, int64_t rows = 4) {
    return *PretrainBatches::Create(*data_, 64, 0.15, 3.0, rows, seed);
  }

  // One row of a step: inputs, then targets.
  static std::pair<Row, Row> RowOf(const PretrainBatches& batches, int64_t step, int64_t row) {
    Row inputs(batches.lengths().inputs), targets(batches.lengths().targets);
    batches.Fill(step, row, 1, inputs.size(), targets.size(), inputs.data(), targets.data());
    return {inputs, targets};
  }

  // The raw tokens of a corrupted example.
  std::vector<int32_t> Restored(const std::pair<Row, Row>& example) {
    std::map<int64_t, std::vector<int32_t>> spans;
    int64_t sentinel = -1;
    for (size_t i = 0; i + 1 < example.second.size(); ++i) {
      const int64_t id = example.second[i];
      if (data_->tokenizer().IsSentinel(id))
        sentinel = id;
      else
        spans[sentinel].push_back(static_cast<int32_t>(id));
    }
    std::vector<int32_t> raw;
    for (size_t i = 0; i + 1 < example.first.size(); ++i) {
      const int64_t id = example.first[i];
      if (data_->tokenizer().IsSentinel(id))
        raw.insert(raw.end(), spans[id].begin(), spans[id].end());
      else
        raw.push_back(static_cast<int32_t>(id));
    }
    return raw;
  }

  std::unique_ptr<Dataset> data_;
};

TEST_F(BatchesTest, AnEpochIsTheTextOnceInAnyOrder) {
  const PretrainBatches batches = Pretrain(3);
  const int64_t raw = batches.lengths().raw;
  ASSERT_EQ(batches.sequences(), data_->train().tokens() / raw);
  ASSERT_GT(batches.sequences(), 30);
  std::multiset<std::vector<int32_t>> stored, seen[2];
  for (int64_t i = 0; i < batches.sequences(); ++i) {
    std::vector<int32_t> ids(raw);
    data_->train().Read(i * raw, ids);
    stored.insert(ids);
  }
  std::vector<std::vector<int32_t>> order[2];
  for (int64_t number = 0; number < 2 * batches.sequences(); ++number) {
    const int64_t epoch = number / batches.sequences();
    order[epoch].push_back(Restored(RowOf(batches, number / 4, number % 4)));
    seen[epoch].insert(order[epoch].back());
  }
  EXPECT_EQ(seen[0], stored);
  EXPECT_EQ(seen[1], stored);
  EXPECT_NE(order[0], order[1]) << "each epoch has an order of its own";
  EXPECT_DOUBLE_EQ(batches.Epochs(10), 40.0 / batches.sequences());
}

TEST_F(BatchesTest, RowsDependOnSeedStepAndRowOnly) {
  const PretrainBatches batches = Pretrain(3), again = Pretrain(3), other = Pretrain(4);
  const arch::SpanCorruptionLengths n = batches.lengths();
  Row inputs(4 * n.inputs), targets(4 * n.targets);
  batches.Fill(7, 0, 4, n.inputs, n.targets, inputs.data(), targets.data());
  for (int64_t row : {3, 0, 2, 1}) {
    const auto [in, out] = RowOf(again, 7, row);
    EXPECT_TRUE(std::equal(in.begin(), in.end(), inputs.begin() + row * n.inputs)) << row;
    EXPECT_TRUE(std::equal(out.begin(), out.end(), targets.begin() + row * n.targets)) << row;
  }
  EXPECT_NE(RowOf(batches, 7, 0), RowOf(other, 7, 0));
  EXPECT_NE(RowOf(batches, 7, 0), RowOf(batches, 8, 0));
}

TEST_F(BatchesTest, ARepeatedSequenceIsMaskedAnew) {
  const PretrainBatches batches = Pretrain(3, 1);
  std::map<std::vector<int32_t>, Row> first;
  for (int64_t i = 0; i < batches.sequences(); ++i) first[Restored(RowOf(batches, i, 0))] = RowOf(batches, i, 0).second;
  int64_t same = 0;
  for (int64_t i = 0; i < batches.sequences(); ++i) {
    const auto example = RowOf(batches, batches.sequences() + i, 0);
    same += first.at(Restored(example)) == example.second;
  }
  EXPECT_LE(same, 1);
}

TEST_F(BatchesTest, WiderRowsArePadded) {
  const PretrainBatches batches = Pretrain(3);
  const arch::SpanCorruptionLengths n = batches.lengths();
  Row inputs(2 * (n.inputs + 5), -1), targets(2 * (n.targets + 3), -1);
  batches.Fill(0, 0, 2, n.inputs + 5, n.targets + 3, inputs.data(), targets.data());
  const auto [in, out] = RowOf(batches, 0, 1);
  EXPECT_TRUE(std::equal(in.begin(), in.end(), inputs.begin() + n.inputs + 5));
  EXPECT_TRUE(std::all_of(inputs.end() - 5, inputs.end(), [](int64_t id) { return id == kPad; }));
  EXPECT_TRUE(std::all_of(targets.end() - 3, targets.end(), [](int64_t id) { return id == kPad; }));
  EXPECT_THROW(batches.Fill(0, 0, 1, n.inputs - 1, n.targets, inputs.data(), targets.data()), std::invalid_argument);
}

TEST_F(BatchesTest, ValidationIsTheSameForEveryRunAndSpread) {
  const ValidationBatches all = *ValidationBatches::Create(*data_, 64, 0.15, 3.0, 0);
  const ValidationBatches some = *ValidationBatches::Create(*data_, 64, 0.15, 3.0, 5);
  const int64_t raw = all.lengths().raw;
  EXPECT_EQ(all.size(), data_->valid().tokens() / raw);
  EXPECT_EQ(some.size(), 5);
  std::multiset<std::vector<int32_t>> stored, seen;
  for (int64_t i = 0; i < all.size(); ++i) {
    Row in_all(all.lengths().inputs), out_all(all.lengths().targets), in_some(in_all), out_some(out_all);
    all.Fill(i, 1, in_all.size(), out_all.size(), in_all.data(), out_all.data());
    seen.insert(Restored({in_all, out_all}));
    std::vector<int32_t> ids(raw);
    data_->valid().Read(i * raw, ids);
    stored.insert(ids);
    if (i >= some.size()) continue;
    some.Fill(i, 1, in_some.size(), out_some.size(), in_some.data(), out_some.data());
    EXPECT_EQ(in_all, in_some) << "a smaller set is a prefix of the larger";
    EXPECT_EQ(out_all, out_some);
  }
  EXPECT_EQ(seen, stored);
  Row inputs(all.lengths().inputs), targets(all.lengths().targets);
  EXPECT_THROW(some.Fill(5, 1, inputs.size(), targets.size(), inputs.data(), targets.data()), std::out_of_range);
}

TEST_F(BatchesTest, UnigramLossIsThatOfTheTextTargets) {
  const ValidationBatches batches = *ValidationBatches::Create(*data_, 64, 0.15, 3.0, 0);
  double sum = 0;
  int64_t tokens = 0;
  for (int64_t i = 0; i < batches.size(); ++i) {
    Row in(batches.lengths().inputs), out(batches.lengths().targets);
    batches.Fill(i, 1, in.size(), out.size(), in.data(), out.data());
    for (int64_t id : out)
      if (id > 1 && id < 400) sum += data_->unigram_nll()[id], ++tokens;
  }
  EXPECT_NEAR(batches.UnigramLoss(), sum / tokens, 1e-12);
  EXPECT_LT(batches.UnigramLoss(), std::log(398.0)) << "better than knowing nothing";
}

TEST_F(BatchesTest, TextShorterThanOneSequenceIsADataError) {
  const auto train = PretrainBatches::Create(*data_, 100'000, 0.15, 1000.0, 1, 0);
  ASSERT_FALSE(train.ok());
  EXPECT_EQ(ExitCodeOfDataError(train.error()), ExitCode::kDataError);
  EXPECT_THAT(train.error().message, HasSubstr("fewer than one sequence"));
  const auto valid = ValidationBatches::Create(*data_, 100'000, 0.15, 1000.0, 0);
  EXPECT_THAT(valid.error().message, HasSubstr("raise validation_fraction"));
  const auto wrong = PretrainBatches::Create(*data_, 4096, 0.15, 3.0, 1, 0);
  EXPECT_EQ(ExitCodeOfDataError(wrong.error()), ExitCode::kConfigurationError);
}

}  // namespace
}  // namespace allometry::trainer
