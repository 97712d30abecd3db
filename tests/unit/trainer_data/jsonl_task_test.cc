#include "worker/trainer/tasks/jsonl_task.h"

#include <gmock/gmock.h>

#include "tests/unit/trainer_data/task_fixture.h"

namespace allometry::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

class OwnTask : public TaskFixture {
 protected:
  void SetUp() override {
    TaskFixture::SetUp();
    auto task = MakeJsonlTask({.name = "mine", .train_file = "t.jsonl", .valid_file = "v.jsonl"});
    ASSERT_TRUE(task.ok()) << task.error().message;
    task_ = std::move(task).value();
  }
  const Task& task() const { return *task_; }

 private:
  std::unique_ptr<Task> task_;
};

TEST_F(OwnTask, Targets) {
  const TaskExamples examples =
      Read(task(), {{"t.jsonl", R"({"input": "say: Haus", "target": "house", "source": "ignored"})"
                                "\n\n"
                                R"({"input": "say: Hut", "target": ["hat", "cap", "hat"], "id": "h-1"})"},
                    {"v.jsonl", R"({"input": "say: Tor", "target": "gate", "id": 12, "passage": "p"})"
                                "\n"
                                R"({"input": "say: Tag", "target": "day", "passage": 3})"
                                "\n"
                                R"({"input": "say: Tau", "target": "dew", "passage": "p"})"}});
  EXPECT_THAT(Shown(task(), examples.train), ElementsAre("say: Haus -> house [0]", "say: Hut -> hat [h-1]"));
  EXPECT_THAT(examples.train[0].references, ElementsAre("house"));
  EXPECT_THAT(examples.train[1].references, ElementsAre("hat", "cap"));
  EXPECT_EQ(examples.train[0].label, -1);
  EXPECT_EQ(examples.train[0].passage, -1);
  EXPECT_THAT(Shown(task(), examples.valid),
              ElementsAre("say: Tor -> gate [12]", "say: Tag -> day [1]", "say: Tau -> dew [2]"));
  EXPECT_EQ(examples.valid[0].passage, 0);
  EXPECT_EQ(examples.valid[1].passage, 1);
  EXPECT_EQ(examples.valid[2].passage, 0);
  EXPECT_THAT(examples.counts, ElementsAre(Pair("train_blank_lines", 1)));
  EXPECT_EQ(task().benchmark(), "own");
  EXPECT_THAT(task().metrics(), ElementsAre("accuracy"));
  EXPECT_THAT(task().files(), ElementsAre("t.jsonl", "v.jsonl"));
}

TEST_F(OwnTask, Choices) {
  const std::string rows = R"({"input": "31 degrees", "choices": ["warm", "cold"], "label": 0})"
                           "\n"
                           R"({"input": "a, b or c?", "choices": ["a", "b", "c"], "label": "c"})";
  const TaskExamples examples = Read(task(), {{"t.jsonl", rows}, {"v.jsonl", rows}});
  EXPECT_THAT(Shown(task(), examples.train), ElementsAre("31 degrees -> warm [0]", "a, b or c? -> c [1]"));
  EXPECT_THAT(examples.train[1].choices, ElementsAre("a", "b", "c"));
  EXPECT_THAT(examples.train[1].references, ElementsAre("c"));
  EXPECT_EQ(examples.train[1].label, 2);
  EXPECT_THAT(task().labels(), IsEmpty());
}

TEST_F(OwnTask, BadRowsAreNamedByFileAndLine) {
  const std::string good = R"({"input": "i", "choices": ["a", "b"], "label": 0})"
                           "\n";
  const auto refuse = [&](const std::string& bad, const std::string& message) {
    ExpectRefused(task(), {{"t.jsonl", good + bad}, {"v.jsonl", good}}, "mine 't.jsonl' line 2: " + message);
  };
  refuse(R"({"choices": ["a", "b"], "label": 0})", "there is no 'input'");
  refuse(R"({"input": "", "choices": ["a", "b"], "label": 0})", "'input' is empty");
  refuse(R"({"input": "i"})", "there is neither 'target' nor 'choices'");
  refuse(R"({"input": "i", "target": "t", "choices": ["a", "b"], "label": 0})", "there are both");
  refuse(R"({"input": "i", "target": "t"})", "there is 'target', but the rows before have 'choices'");
  refuse(R"({"input": "i", "choices": ["a", "b"]})", "there are 'choices' but no 'label'");
  refuse(R"({"input": "i", "choices": ["a", "b"], "label": 2})", "the label 2 is not from 0 to 1");
  refuse(R"({"input": "i", "choices": ["a", "b"], "label": "c"})", "the label 'c' is none of the choices");
  refuse(R"({"input": "i", "choices": ["a", "b"], "label": true})", "'label' should be a whole number");
  refuse(R"({"input": "i", "choices": ["a"], "label": 0})", "'choices' should have at least two texts");
  refuse(R"({"input": "i", "choices": ["a", "a"], "label": 0})", "two of the 'choices' are the same");
  refuse(R"({"input": "i", "choices": ["a", ""], "label": 0})", "one of the 'choices' is empty");
  refuse(R"({"input": "i", "choices": ["a", 1], "label": 0})", "'choices' should be a list of texts");
  refuse(R"({"input": "i", "choices": ["a", "b"], "label": 0, "id": 1.5})", "'id' should be there and a text");
  refuse(R"({"input": "i", "choices)", "not valid JSON");
  ExpectRefused(task(), {{"t.jsonl", R"({"input": "i", "target": ["a", ""]})"}, {"v.jsonl", good}},
                "line 1: 'target' is empty");
  ExpectRefused(task(), {{"t.jsonl", R"({"input": "i", "target": []})"}, {"v.jsonl", good}},
                "line 1: 'target' is empty");
}

TEST(MakeJsonlTask, ChecksItsOptions) {
  const auto message = [](JsonlTaskOptions options) {
    const auto task = MakeJsonlTask(std::move(options));
    return task ? std::string("no error") : task.error().message;
  };
  EXPECT_EQ(message({.name = "mine", .metrics = {"f1", "exact_match"}}), "no error");
  EXPECT_THAT(message({}), HasSubstr("needs a name"));
  EXPECT_THAT(message({.name = "squad"}), HasSubstr("is that of a built-in task"));
  EXPECT_THAT(message({.name = "wordnet_pos"}), HasSubstr("is that of a built-in task"));
  EXPECT_THAT(message({.name = "m", .train_file = "a", .valid_file = "a"}), HasSubstr("the same file, 'a'"));
  EXPECT_THAT(message({.name = "m", .metrics = {"bleu"}}), HasSubstr("there is no metric 'bleu'"));
  EXPECT_THAT(message({.name = "m", .metrics = {}}), HasSubstr("has no metric"));
}

}  // namespace
}  // namespace allometry::trainer
