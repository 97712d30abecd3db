#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "common/json.h"
#include "common/sha256.h"
#include "coordinator/grid/check.h"
#include "coordinator/grid/grid.h"
#include "coordinator/grid/known_tasks.h"
#include "coordinator/grid/sweep_file.h"

// A namespace of its own: in a unity build grid_test.cc has some of these names too.
namespace allometry::coordinator::sweep_tasks {
namespace {

using common::Json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

common::Result<v1::SweepSpec> Parse(const std::string& finetuning) {
  return ParseSweep(
      "name: study\ndata: {text: ['*.txt']}\ntokenizer: 512\narchitectures: [transformer]\n"
      "sizes: [{name: own, layers: 2, d_model: 16, d_ff: 64, heads: 2, d_kv: 8}]\n"
      "pretraining: {steps: 10, input_length: 64, batch_sequences: 4}\nfinetuning: " +
          finetuning + "\n",
      "s.yaml");
}

std::vector<Cell> Cells(const std::string& finetuning) {
  const auto spec = Parse(finetuning);
  if (!spec) throw std::logic_error(spec.error().message);
  std::vector<v1::ManifestFile> manifest;
  const auto add = [&](const std::string& role) {
    v1::ManifestFile& file = manifest.emplace_back();
    file.set_role(role);
    file.set_name("file");
    file.set_sha256(common::Sha256Hex(role));
  };
  add("corpus");
  for (const v1::TaskSpec& task : TasksOf(*spec)) add("task:" + task.name());
  const auto cells = Expand(*spec, manifest);
  if (!cells) throw std::logic_error(cells.error().message);
  return *cells;
}

Json RunOf(const Cell& cell) { return Json::parse(cell.run_json); }
Json Finetuning(const std::string& finetuning) { return RunOf(Cells(finetuning).back()); }

std::string Mistake(const std::string& finetuning) {
  const auto spec = Parse(finetuning);
  return spec ? "none" : spec.error().message;
}

TEST(SweepTasks, AGroupStandsForTheTasksOfItsAverage) {
  const auto spec = Parse("{tasks: [{name: glue, max_train: 7}, {name: superglue, folder: sg}, squad], steps: 5}");
  ASSERT_TRUE(spec.ok()) << spec.error().message;
  const std::vector<v1::TaskSpec> tasks = TasksOf(*spec);
  ASSERT_EQ(tasks.size(), 17u);
  EXPECT_EQ(tasks[0].name(), "glue_cola");
  EXPECT_EQ(tasks[7].name(), "glue_rte");
  EXPECT_EQ(tasks[7].max_train(), 7);
  EXPECT_EQ(tasks[8].folder(), "sg/BoolQ");
  EXPECT_EQ(tasks[16].name(), "squad");
  EXPECT_THAT(Mistake("{tasks: [glue, glue_rte]}"), HasSubstr("task 'glue_rte' comes twice"));
}

TEST(SweepTasks, OneCellForAllOrOneForEach) {
  EXPECT_EQ(Cells("{tasks: [glue, squad], steps: 5}").back().name, "transformer-own-s0-ft");
  const auto cells = Cells("{tasks: [glue_rte, squad], steps: 5, mode: separate}");
  std::vector<std::string> names;
  for (const Cell& cell : cells) names.push_back(cell.name);
  EXPECT_THAT(names, ElementsAre("prepare", "prepare-ft-glue_rte", "prepare-ft-squad", "transformer-own-s0",
                                 "transformer-own-s0-ft-glue_rte", "transformer-own-s0-ft-squad"));
  EXPECT_THAT(RunOf(cells[5])["tasks"], Json::array({{{"name", "squad"}}}));
  EXPECT_EQ(cells[5].parents[0].identity, cells[2].identity);
  EXPECT_EQ(cells[5].parents[1].identity, cells[3].identity) << "both from one pretrained model";
}

// Names and identities of the cells of both sweeps.
std::set<std::string> Shared(const std::string& one, const std::string& other) {
  std::map<std::string, std::string> first;
  for (const Cell& cell : Cells(one)) first[cell.name] = cell.identity;
  std::set<std::string> shared;
  for (const Cell& cell : Cells(other))
    if (const auto same = first.find(cell.name); same != first.end() && same->second == cell.identity)
      shared.insert(cell.name);
  return shared;
}

TEST(SweepTasks, AnotherTaskChangesNoPretraining) {
  EXPECT_THAT(Shared("{tasks: [glue_rte]}", "{tasks: [glue_rte, superglue_cb, squad]}"),
              ElementsAre("prepare", "transformer-own-s0"));
  EXPECT_THAT(Shared("{tasks: [glue_rte], mode: separate}", "{tasks: [glue_rte, squad], mode: separate}"),
              ElementsAre("prepare", "prepare-ft-glue_rte", "transformer-own-s0", "transformer-own-s0-ft-glue_rte"));
}

TEST(SweepTasks, ATokenizerSpellsTheLabelsOfItsTasksBenchmarks) {
  const auto spells = [](const std::string& finetuning) {
    return RunOf(Cells(finetuning)[0])["tokenizer"].value("spells", Json::array());
  };
  EXPECT_EQ(spells("{tasks: [squad]}"), Json::array({"glue", "superglue"}));
  EXPECT_EQ(spells("{tasks: [wordnet_pos, glue_rte]}"), Json::array({"glue", "superglue", "wordnet"}));
  EXPECT_EQ(spells("{tasks: [{name: mine, train: a.jsonl, valid: b.jsonl}]}"), Json::array());
}

TEST(SweepTasks, SelectionHoldsOutOfTrainingUnlessToldOtherwise) {
  EXPECT_FALSE(Finetuning("{tasks: [glue_rte]}").contains("holdout"));
  const Json best = Finetuning("{tasks: [glue_rte], select: best, steps: 100}");
  EXPECT_EQ(best["holdout"], 256);
  EXPECT_EQ(best["evaluation"]["every_steps"], 10);
  const Json on_test =
      Finetuning("{tasks: [glue_rte], select: best, holdout: 0, early_stop: 3, evaluate_every_steps: 7}");
  EXPECT_FALSE(on_test.contains("holdout"));
  EXPECT_EQ(on_test["early_stop"], 3);
  EXPECT_EQ(on_test["evaluation"]["every_steps"], 7);
  EXPECT_THAT(Mistake("{tasks: [glue_rte], early_stop: 3}"), HasSubstr("need select: best"));
}

TEST(SweepTasks, DecodingIsTheTasksOrTheFinetunings) {
  const Json run = Finetuning("{tasks: [glue_rte, {name: superglue_copa, decoding: greedy}], decoding: rank}");
  EXPECT_EQ(run["decoding"], "rank");
  EXPECT_EQ(run["tasks"], Json::parse(R"([{"name": "glue_rte"}, {"name": "superglue_copa", "decoding": "greedy"}])"));
  EXPECT_FALSE(Finetuning("{tasks: [glue_rte], decoding: greedy}").contains("decoding")) << "the default has no trace";
  EXPECT_THAT(Mistake("{tasks: [{name: squad, decoding: rank}]}"), HasSubstr("squad has no choices to rank"));
  EXPECT_THAT(Mistake("{tasks: [glue_rte], decoding: beam}"), HasSubstr("allowed: greedy rank"));
}

TEST(SweepTasks, TargetsAreLongUnlessAnswersAreSingleWords) {
  EXPECT_EQ(Finetuning("{tasks: [wordnet_pos]}")["target_length"], 8);
  EXPECT_EQ(Finetuning("{tasks: [wordnet_pos, squad]}")["target_length"], 64);
  EXPECT_EQ(Finetuning("{tasks: [squad], target_length: 20}")["target_length"], 20);
}

TEST(SweepTasks, OnesOwnIsDeclaredByItsFiles) {
  const auto cells = Cells("{tasks: [{name: haiku, train: a/t.jsonl, valid: a/v.jsonl, metrics: [f1, exact_match]}]}");
  const Json task = RunOf(cells[1])["tasks"][0];
  EXPECT_EQ(task["train"], "t.jsonl");
  EXPECT_EQ(task["valid"], "v.jsonl");
  EXPECT_EQ(task["metrics"], Json::parse(R"(["f1", "exact_match"])"));
  EXPECT_THAT(Mistake("{tasks: [haiku]}"), HasSubstr("a task of your own has train and valid"));
  EXPECT_THAT(Mistake("{tasks: [glue_rtx]}"), HasSubstr("did you mean 'glue_rte'"));
  EXPECT_THAT(Mistake("{tasks: [{name: haiku, train: t.jsonl}]}"), HasSubstr("both train and valid"));
  EXPECT_THAT(Mistake("{tasks: [{name: haiku, train: a/x.jsonl, valid: b/x.jsonl}]}"), HasSubstr("same file name"));
  EXPECT_THAT(Mistake("{tasks: [{name: squad, train: t.jsonl, valid: v.jsonl}]}"), HasSubstr("is a built-in task"));
  EXPECT_THAT(Mistake("{tasks: [{name: haiku, train: t.jsonl, valid: v.jsonl, metrics: [bleu]}]}"),
              HasSubstr("allowed: accuracy exact_match f1"));
  EXPECT_THAT(Mistake("{tasks: [{name: glue_rte, metrics: [f1]}]}"), HasSubstr("as its benchmark does"));
}

TEST(SweepTasks, PaddingIsPartOfThePreparationsIdentity) {
  const auto plain = Cells("{tasks: [squad]}"), padded = Cells("{tasks: [{name: squad, t5_padding: true}]}");
  EXPECT_EQ(RunOf(padded[1])["tasks"][0]["t5_padding"], true);
  EXPECT_NE(plain[1].identity, padded[1].identity);
  EXPECT_THAT(Mistake("{tasks: [{name: glue_rte, t5_padding: true}]}"), HasSubstr("for squad only"));
}

TEST(SweepTasks, BadRowsAreSkippedByEveryTaskOfAGroup) {
  const auto cells = Cells("{tasks: [{name: glue, skip_bad_rows: true}, squad]}");
  const Json run = RunOf(cells[1]);
  for (const Json& task : run["tasks"])
    EXPECT_EQ(task.value("skip_bad_rows", false), task["name"] != "squad") << task;
  EXPECT_THAT(Mistake("{tasks: [{name: wordnet_pos, skip_bad_rows: true}]}"), HasSubstr("whose rows belong together"));
}

}  // namespace
}  // namespace allometry::coordinator::sweep_tasks
