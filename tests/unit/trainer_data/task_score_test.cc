#include <gmock/gmock.h>

#include <cmath>

#include "tests/unit/trainer_data/data_fixture.h"
#include "tests/unit/trainer_data/made_up_wordnet.h"
#include "worker/trainer/data/dataset.h"
#include "worker/trainer/data/prepare.h"

namespace allometry::trainer {
namespace {

using common::Json;

class TaskScoreTest : public DataFixture {
 protected:
  void SetUp() override {
    DataFixture::SetUp();
    std::string text = MadeUpText(400, 30, 1);
    for (int i = 0; i < 40; ++i) text += "noun verb adjective adverb true false : " + std::to_string(i) + "\n\n";
    Json run = TextRun(Write("text.txt", text), 500);
    run["tasks"] = {{{"name", "wordnet_wic"},
                     {"files",
                      {Manifest(Write("data.noun", MadeUpSynsets('n', 1, 3))),
                       Manifest(Write("data.verb", MadeUpSynsets('v', 2, 3)))}}}};
    ASSERT_TRUE(Prepare(run, execution_, dir_ / "data", nullptr).ok());
    const Dataset data = *Dataset::Open(dir_ / "data");
    task_ = *data.OpenTask("wordnet_wic");  // outlives the data set
  }
  TaskData task_;
};

TEST_F(TaskScoreTest, CountsRightWrongAndUnparsed) {
  const int64_t n = task_.valid().size();
  ASSERT_GE(n, 20);
  std::vector<int32_t> predicted(task_.valid().labels().begin(), task_.valid().labels().end());
  TaskScore score = ScoreTask(task_, predicted);
  EXPECT_EQ(score.value, 1);
  EXPECT_EQ(score.majority, 0.5);
  EXPECT_EQ(score.standard_error, 0);
  EXPECT_FALSE(score.at_chance);
  predicted[0] = -1;
  predicted[1] = 1 - predicted[1];
  score = ScoreTask(task_, predicted);
  const double value = static_cast<double>(n - 2) / static_cast<double>(n);
  EXPECT_DOUBLE_EQ(score.value, value);
  EXPECT_DOUBLE_EQ(score.standard_error, std::sqrt(value * (1 - value) / static_cast<double>(n)));
  EXPECT_EQ(score.unparsed, 1);
  EXPECT_EQ(score.examples, n);
  const Json json = score.ToJson();
  for (const char* key : {"task", "metric", "value", "examples", "majority", "standard_error", "at_chance", "unparsed"})
    EXPECT_TRUE(json.contains(key)) << key;
}

TEST_F(TaskScoreTest, ChanceIsWithinTwoStandardErrorsOfTheMajority) {
  const int64_t n = task_.valid().size();
  EXPECT_TRUE(ScoreTask(task_, std::vector<int32_t>(n, 0)).at_chance);
  EXPECT_TRUE(ScoreTask(task_, std::vector<int32_t>(n, -1)).at_chance) << "below the majority is chance too";
  // The flag changes exactly where value - 2 se crosses the majority share.
  for (int64_t right = 0; right <= n; ++right) {
    std::vector<int32_t> predicted(task_.valid().labels().begin(), task_.valid().labels().end());
    for (int64_t i = right; i < n; ++i) predicted[i] = 1 - predicted[i];
    const double value = static_cast<double>(right) / static_cast<double>(n);
    const double error = std::sqrt(value * (1 - value) / static_cast<double>(n));
    EXPECT_EQ(ScoreTask(task_, predicted).at_chance, value - 2 * error <= 0.5) << right;
  }
}

TEST_F(TaskScoreTest, AnswersAreParsedAsText) {
  const auto answer = [&](std::vector<int64_t> ids) { return task_.ParseLabel(ids); };
  for (int32_t label : {0, 1}) {
    std::vector<int64_t> ids(task_.label_tokens()[label].begin(), task_.label_tokens()[label].end());
    EXPECT_EQ(answer(ids), label) << "with its end mark";
    ids.insert(ids.end(), {5, 6, 7});
    EXPECT_EQ(answer(ids), label) << "what follows the end mark is ignored";
    ids.resize(task_.label_tokens()[label].size() - 1);
    EXPECT_EQ(answer(ids), label) << "without its end mark";
    ids.insert(ids.end(), ids.begin(), ids.end());
    EXPECT_EQ(answer(ids), -1) << "said twice";
  }
  EXPECT_EQ(answer({}), -1);
  EXPECT_EQ(answer({0, 0}), -1);
  EXPECT_EQ(answer({499}), -1) << "a sentinel";
}

}  // namespace
}  // namespace allometry::trainer
