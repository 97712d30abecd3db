#include "worker/trainer/data/batches.h"

#include <gmock/gmock.h>

#include <map>
#include <set>

#include "tests/unit/trainer_data/data_fixture.h"
#include "tests/unit/trainer_data/made_up_wordnet.h"
#include "worker/trainer/data/prepare.h"
#include "worker/trainer/data/token_ids.h"

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

  TaskShare Share(const char* name, int64_t max_train = 0) { return {*data_->OpenTask(name), max_train}; }

  std::unique_ptr<Dataset> data_;
};

using Pair = std::pair<Row, Row>;

std::vector<Pair> Rows(const FinetuneBatches& batches, int64_t first, int64_t count, int64_t width, int64_t batch) {
  std::vector<Pair> rows;
  for (int64_t i = first; i < first + count; ++i) {
    Row in(width), out(8);
    batches.Fill(i / batch, i % batch, 1, in.data(), out.data());
    rows.emplace_back(in, out);
  }
  return rows;
}

TEST_F(BatchesTest, AMixedEpochHoldsEveryExampleOnce) {
  const auto pos = Share("wordnet_pos"), wic = Share("wordnet_wic");
  const auto batches = FinetuneBatches::Create({pos, wic}, 0, 96, 8, 16, 5, false);
  ASSERT_TRUE(batches.ok()) << batches.error().message;
  EXPECT_EQ(batches->epoch_examples(), pos.task.train().size() + wic.task.train().size());
  std::multiset<Pair> expected;
  for (const TaskShare* share : {&pos, &wic})
    for (int64_t i = 0; i < share->task.train().size(); ++i) {
      std::vector<int32_t> in(96);
      EXPECT_FALSE(share->task.train().FillInput(i, in));
      Row out(8, 0);
      const auto& label = share->task.label_tokens()[share->task.train().Label(i)];
      std::copy(label.begin(), label.end(), out.begin());
      expected.emplace(Row(in.begin(), in.end()), out);
    }
  for (int64_t epoch : {0, 1}) {
    const auto rows = Rows(*batches, epoch * batches->epoch_examples(), batches->epoch_examples(), 96, 16);
    EXPECT_EQ(std::multiset<Pair>(rows.begin(), rows.end()), expected);
  }
  EXPECT_NE(Rows(*batches, 0, 20, 96, 16), Rows(*batches, batches->epoch_examples(), 20, 96, 16));
}

TEST_F(BatchesTest, ACapLimitsTheShareAndNothingIsStarved) {
  const auto pos = Share("wordnet_pos"), wic = Share("wordnet_wic", 6);
  const auto batches = FinetuneBatches::Create({pos, wic}, 10, 96, 8, 16, 5, false);
  ASSERT_TRUE(batches.ok());
  EXPECT_EQ(batches->epoch_examples(), 16);
  std::set<Row> seen;
  int64_t of_pos = 0;
  for (const auto& [in, out] : Rows(*batches, 0, 16 * 40, 96, 16)) {
    const bool is_pos =
        data_->tokenizer().Decode(std::vector<int32_t>(in.begin(), in.end())).starts_with("part of speech");
    of_pos += is_pos;
    if (is_pos) seen.insert(in);
  }
  EXPECT_EQ(of_pos, 10 * 40);
  EXPECT_EQ(static_cast<int64_t>(seen.size()), std::min<int64_t>(400, pos.task.train().size()));
}

TEST_F(BatchesTest, ShuffledLabelsKeepInputsAndFrequencies) {
  const auto as_is = FinetuneBatches::Create({Share("wordnet_pos")}, 0, 96, 8, 16, 5, false);
  const auto shuffled = FinetuneBatches::Create({Share("wordnet_pos")}, 0, 96, 8, 16, 5, true);
  const int64_t n = as_is->epoch_examples();
  const auto a = Rows(*as_is, 0, n, 96, 16), b = Rows(*shuffled, 0, n, 96, 16);
  std::multiset<Row> labels_a, labels_b;
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

TEST_F(BatchesTest, LongInputsAreCutAndCounted) {
  const TaskShare pos = Share("wordnet_pos");
  const auto batches = FinetuneBatches::Create({pos}, 0, 6, 8, 16, 5, false);
  ASSERT_TRUE(batches.ok());
  EXPECT_EQ(batches->truncated(), pos.task.train().size());
  EXPECT_EQ(CountTruncated(pos.task.valid(), 6), pos.task.valid().size());
  EXPECT_EQ(CountTruncated(pos.task.valid(), 96), 0);
  for (const auto& [in, out] : Rows(*batches, 0, 20, 6, 16)) EXPECT_EQ(in.back(), kEos);
  Row inputs(2 * 96);
  FillTaskInputs(pos.task.valid(), 1, 2, 96, inputs.data());
  const std::vector<int32_t> second = pos.task.valid().Input(2);
  EXPECT_TRUE(std::equal(second.begin(), second.end(), inputs.begin() + 96));
}

TEST_F(BatchesTest, ALabelThatDoesNotFitIsExplained) {
  const auto batches = FinetuneBatches::Create({Share("wordnet_pos")}, 0, 64, 1, 16, 5, false);
  ASSERT_FALSE(batches.ok());
  EXPECT_EQ(batches.error().code, common::ErrorCode::kInvalidArgument);
  EXPECT_THAT(batches.error().message, HasSubstr("target_length is 1"));
  EXPECT_FALSE(FinetuneBatches::Create({}, 0, 64, 8, 16, 5, false).ok());
}

}  // namespace
}  // namespace allometry::trainer
