#include "worker/trainer/data/finetune_batches.h"

#include <gmock/gmock.h>

#include <cmath>
#include <set>

#include "tests/unit/trainer_data/data_fixture.h"
#include "tests/unit/trainer_data/made_up_wordnet.h"
#include "worker/trainer/data/dataset.h"
#include "worker/trainer/data/prepare.h"
#include "worker/trainer/data/span_corruption.h"

namespace allometry::trainer {
namespace {

using common::Json;
using ::testing::HasSubstr;
using IdRow = std::vector<int64_t>;

class FinetuneBatchesTest : public DataFixture {
 protected:
  void SetUp() override {
    DataFixture::SetUp();
    std::string text = MadeUpText(400, 30, 1);
    for (int i = 0; i < 40; ++i) text += "noun verb adjective adverb true false : " + std::to_string(i) + "\n\n";
    Json run = TextRun(Write("text.txt", text), 500);
    Json files = {
        Manifest(Write("data.noun", MadeUpSynsets('n', 1, 3))), Manifest(Write("data.verb", MadeUpSynsets('v', 2, 3))),
        Manifest(Write("data.adj", MadeUpSynsets('s', 3, 1))), Manifest(Write("data.adv", MadeUpSynsets('r', 4, 1)))};
    run["tasks"] = {
        {{"name", "wordnet_pos"}, {"files", files}}, {{"name", "wordnet_wic"}, {"files", files}}, OwnTask()};
    const common::Status status = Prepare(run, execution_, dir_ / "data", nullptr);
    ASSERT_TRUE(status.ok()) << status.error().message;
    data_ = std::make_unique<Dataset>(std::move(*Dataset::Open(dir_ / "data")));
  }

  // Forty rows, in four passages of ten, whose answers have as many words as the row's number says.
  Json OwnTask() {
    std::string rows;
    for (int i = 0; i < 40; ++i) {
      std::string target = "noun";
      for (int w = 0; w < i % 10; ++w) target += " verb";
      std::string input = "repeat";
      for (int bit = 1; bit < 64; bit *= 2) input += i & bit ? " true" : " false";
      rows += Json{{"input", input}, {"target", target}, {"passage", i / 10}}.dump() + "\n";
    }
    return {{"name", "words"},
            {"train", "train.jsonl"},
            {"valid", "valid.jsonl"},
            {"metrics", {"exact_match"}},
            {"files", {Manifest(Write("train.jsonl", rows)), Manifest(Write("valid.jsonl", rows + rows))}}};
  }

  TaskShare Share(const char* name, int64_t max_train = 0) { return {*data_->OpenTask(name), max_train}; }

  std::unique_ptr<Dataset> data_;
};

using RowPair = std::pair<IdRow, IdRow>;

std::vector<RowPair> ReadRows(const FinetuneBatches& batches, int64_t first, int64_t count, int64_t width,
                              int64_t batch) {
  std::vector<RowPair> rows;
  for (int64_t i = first; i < first + count; ++i) {
    IdRow in(width), out(8);
    batches.Fill(i / batch, i % batch, 1, in.data(), out.data());
    rows.emplace_back(in, out);
  }
  return rows;
}

TEST_F(FinetuneBatchesTest, AMixedEpochHoldsEveryExampleOnce) {
  const auto pos = Share("wordnet_pos"), wic = Share("wordnet_wic");
  const auto batches = FinetuneBatches::Create({pos, wic}, 0, 96, 8, 16, 5, false);
  ASSERT_TRUE(batches.ok()) << batches.error().message;
  EXPECT_EQ(batches->epoch_examples(), pos.task.train().size() + wic.task.train().size());
  std::multiset<RowPair> expected;
  for (const TaskShare* share : {&pos, &wic})
    for (int64_t i = 0; i < share->task.train().size(); ++i) {
      std::vector<int32_t> in(96);
      EXPECT_FALSE(share->task.train().FillInput(i, in));
      IdRow out(8, 0);
      const auto& label = share->task.label_tokens()[share->task.train().Label(i)];
      std::copy(label.begin(), label.end(), out.begin());
      expected.emplace(IdRow(in.begin(), in.end()), out);
    }
  for (int64_t epoch : {0, 1}) {
    const auto rows = ReadRows(*batches, epoch * batches->epoch_examples(), batches->epoch_examples(), 96, 16);
    EXPECT_EQ(std::multiset<RowPair>(rows.begin(), rows.end()), expected);
  }
  EXPECT_NE(ReadRows(*batches, 0, 20, 96, 16), ReadRows(*batches, batches->epoch_examples(), 20, 96, 16));
}

TEST_F(FinetuneBatchesTest, ACapLimitsTheShareAndNothingIsStarved) {
  const auto pos = Share("wordnet_pos"), wic = Share("wordnet_wic", 6);
  const auto batches = FinetuneBatches::Create({pos, wic}, 10, 96, 8, 16, 5, false);
  ASSERT_TRUE(batches.ok());
  EXPECT_EQ(batches->epoch_examples(), 16);
  std::set<IdRow> seen;
  int64_t of_pos = 0;
  for (const auto& [in, out] : ReadRows(*batches, 0, 16 * 40, 96, 16)) {
    const bool is_pos =
        data_->tokenizer().Decode(std::vector<int32_t>(in.begin(), in.end())).starts_with("part of speech");
    of_pos += is_pos;
    if (is_pos) seen.insert(in);
  }
  EXPECT_EQ(of_pos, 10 * 40);
  EXPECT_EQ(static_cast<int64_t>(seen.size()), std::min<int64_t>(400, pos.task.train().size()));
}

TEST_F(FinetuneBatchesTest, ShuffledLabelsKeepInputsAndFrequencies) {
  const auto as_is = FinetuneBatches::Create({Share("wordnet_pos")}, 0, 96, 8, 16, 5, false);
  const auto shuffled = FinetuneBatches::Create({Share("wordnet_pos")}, 0, 96, 8, 16, 5, true);
  const int64_t n = as_is->epoch_examples();
  const auto a = ReadRows(*as_is, 0, n, 96, 16), b = ReadRows(*shuffled, 0, n, 96, 16);
  std::multiset<IdRow> labels_a, labels_b;
  int64_t same = 0;
  for (int64_t i = 0; i < n; ++i) {
    EXPECT_EQ(a[i].first, b[i].first);
    same += a[i].second == b[i].second;
    labels_a.insert(a[i].second);
    labels_b.insert(b[i].second);
  }
  EXPECT_EQ(labels_a, labels_b);
  EXPECT_NEAR(static_cast<double>(same), n / 4.0, 5 * std::sqrt(n * 3.0 / 16)) << "one label in four agrees by chance";
}

TEST_F(FinetuneBatchesTest, LongInputsAreCutAndCounted) {
  const TaskShare pos = Share("wordnet_pos");
  const auto batches = FinetuneBatches::Create({pos}, 0, 6, 8, 16, 5, false);
  ASSERT_TRUE(batches.ok());
  EXPECT_EQ(batches->truncated(), pos.task.train().size());
  for (const auto& [in, out] : ReadRows(*batches, 0, 20, 6, 16)) EXPECT_EQ(in.back(), kEos);
}

TEST_F(FinetuneBatchesTest, FreeAnswersAreCutAndCounted) {
  const TaskShare words = Share("words");
  const int64_t longest = words.task.LongestTarget();
  const auto batches = FinetuneBatches::Create({words}, 0, 96, longest - 1, 16, 5, false);
  ASSERT_TRUE(batches.ok()) << batches.error().message;
  EXPECT_EQ(batches->counts()[0].targets_cut, 4) << "the longest answer of each passage";
  EXPECT_EQ(FinetuneBatches::Create({words}, 0, 96, longest, 16, 5, false)->counts()[0].targets_cut, 0);
  int64_t without_end = 0;
  for (int64_t i = 0; i < 40; ++i) {
    IdRow in(96), out(static_cast<size_t>(longest - 1));
    batches->Fill(i / 16, i % 16, 1, in.data(), out.data());
    without_end += std::ranges::count(out, kEos) == 0;
  }
  EXPECT_EQ(without_end, 4) << "a cut answer does not teach where to end";
}

TEST_F(FinetuneBatchesTest, HeldOutExamplesAreNeverTrainedOn) {
  TaskShare words = Share("words");
  const auto held_out = HoldOut(words.task.train(), words.task.train().size(), 100);
  ASSERT_TRUE(held_out.ok()) << held_out.error().message;
  ASSERT_EQ(held_out->size(), 10u) << "four examples are wanted, and a passage is not divided";
  const int32_t passage = words.task.train().facts(held_out->front()).passage;
  for (int64_t example : *held_out) EXPECT_EQ(words.task.train().facts(example).passage, passage);
  words.held_out = *held_out;
  const auto batches = FinetuneBatches::Create({words}, 0, 96, 32, 16, 5, false);
  EXPECT_EQ(batches->epoch_examples(), 30);
  std::set<IdRow> inputs;
  for (int64_t i = 0; i < 120; ++i) {
    IdRow in(96), out(32);
    batches->Fill(i / 16, i % 16, 1, in.data(), out.data());
    inputs.insert(in);
  }
  EXPECT_EQ(inputs.size(), 30u);
  for (int64_t example : *held_out) {
    std::vector<int32_t> input(96);
    words.task.train().FillInput(example, input);
    EXPECT_FALSE(inputs.contains(IdRow(input.begin(), input.end())));
  }
}

TEST_F(FinetuneBatchesTest, WhatIsHeldOutDependsOnTheDataOnly) {
  const TaskShare share = Share("wordnet_pos");
  const TaskSplit& train = share.task.train();
  const auto first = HoldOut(train, train.size(), 1'000'000);
  EXPECT_EQ(static_cast<int64_t>(first->size()), train.size() / 10) << "at most a tenth";
  EXPECT_EQ(*first, *HoldOut(train, train.size(), 1'000'000));
  EXPECT_EQ(HoldOut(train, train.size(), 3)->size(), 3u);
  EXPECT_TRUE(std::ranges::is_sorted(*first));
  EXPECT_LT(HoldOut(train, 20, 3)->back(), 20) << "of the examples in use";
  EXPECT_THAT(HoldOut(Share("words").task.train(), 10, 3).error().message, HasSubstr("one passage"));
}

TEST_F(FinetuneBatchesTest, ALabelThatDoesNotFitIsExplained) {
  const auto batches = FinetuneBatches::Create({Share("wordnet_pos")}, 0, 64, 1, 16, 5, false);
  ASSERT_FALSE(batches.ok());
  EXPECT_EQ(batches.error().code, common::ErrorCode::kInvalidArgument);
  EXPECT_THAT(batches.error().message, HasSubstr("target_length is 1"));
  EXPECT_FALSE(FinetuneBatches::Create({}, 0, 64, 8, 16, 5, false).ok());
}

}  // namespace
}  // namespace allometry::trainer
