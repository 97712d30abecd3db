#include "coordinator/grid/grid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "common/json.h"
#include "common/sha256.h"
#include "coordinator/grid/identity.h"
#include "coordinator/grid/sweep_file.h"

namespace allometry::coordinator {
namespace {

using common::Json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<v1::ManifestFile> Manifest(std::initializer_list<const char*> roles) {
  std::vector<v1::ManifestFile> files;
  for (const char* role : roles) {
    v1::ManifestFile& file = files.emplace_back();
    file.set_role(role);
    file.set_name(std::string(role) + ".txt");
    file.set_bytes(5);
    file.set_sha256(common::Sha256Hex(role));
    file.set_path("/somewhere/" + std::string(role));
  }
  return files;
}

std::vector<v1::ManifestFile> FullManifest() {
  return Manifest({"corpus", "tokenizer", "task:wordnet_pos", "task:wordnet_wic"});
}

v1::SweepSpec Spec() {
  auto spec = ParseSweep(R"(name: study
data: {text: ['*.txt']}
tokenizer: 512
architectures: [transformer, lconv]
sizes: [{name: own, layers: 2, d_model: 16, d_ff: 64, heads: 2, d_kv: 8}, nano]
seeds: [0, 3]
pretraining: {steps: 10, input_length: 64, batch_sequences: 4}
finetuning: {tasks: [wordnet_pos], steps: 5, batch_sequences: 2}
)",
                         "s.yaml");
  if (!spec) throw std::logic_error(spec.error().message);
  return *spec;
}

std::vector<Cell> Cells(const v1::SweepSpec& spec, const std::vector<v1::ManifestFile>& manifest = FullManifest()) {
  auto cells = Expand(spec, manifest);
  if (!cells) throw std::logic_error(cells.error().message);
  return *cells;
}

const Cell& Named(const std::vector<Cell>& cells, const std::string& name) {
  for (const Cell& cell : cells)
    if (cell.name == name) return cell;
  throw std::logic_error("no cell " + name);
}

Json RunOf(const Cell& cell) { return Json::parse(cell.run_json); }

TEST(Grid, CrossesDepthWidthAndVocabulary) {
  auto spec = Spec();
  spec.mutable_sizes()->DeleteSubrange(1, 1);
  spec.mutable_sizes(0)->set_vocabulary(600);
  spec.clear_seeds();
  spec.clear_finetuning();
  for (int64_t layers : {2, 4}) spec.mutable_axes()->add_layers(layers);
  spec.mutable_axes()->add_d_model(32);
  for (int64_t rows : {512, 1024}) spec.mutable_axes()->add_vocabulary(rows);
  const auto cells = Cells(spec);
  ASSERT_EQ(cells.size(), 1u + 2 * 2 * 2);
  const Json shape = RunOf(Named(cells, "lconv-own-nl4-dm32-nv1024-s0"))["model"]["shape"];
  EXPECT_EQ(shape["encoder_layers"], 4);
  EXPECT_EQ(shape["decoder_layers"], 4);
  EXPECT_EQ(shape["d_model"], 32);
  EXPECT_EQ(shape["vocabulary"], 1024);
  spec.clear_axes();
  EXPECT_EQ(RunOf(Cells(spec)[1])["model"]["shape"]["vocabulary"], 600) << "the size's own rows";
}

// A small model is bound by its launches, and a base model is not.
TEST(Grid, SmallRunsShareAGpu) {
  auto spec = Spec();
  v1::SizeSpec* base = spec.add_sizes();
  base->set_name("base");
  spec.mutable_pretraining()->set_batch_sequences(128);
  spec.mutable_pretraining()->set_input_length(512);
  const auto cells = Cells(spec);
  EXPECT_EQ(Named(cells, "transformer-nano-s0-ft").slots_per_gpu, 16);
  EXPECT_LE(Named(cells, "transformer-nano-s0").slots_per_gpu, 2) << "a batch of 128 x 512 keeps even it busy";
  EXPECT_EQ(Named(Cells(Spec()), "transformer-nano-s0").slots_per_gpu, 16) << "one of 4 x 64 does not";
  EXPECT_EQ(Named(cells, "transformer-base-s0").slots_per_gpu, 1);
  EXPECT_EQ(cells[0].slots_per_gpu, 1) << "a preparation";
  const v1::Costs& costs = Named(cells, "transformer-base-s0").costs;
  EXPECT_GT(costs.gpu_whole_bytes(), 6 * costs.parameters()) << "bf16 weights and fp32 masters";
  EXPECT_GT(costs.gpu_divided_bytes(), 2 * costs.parameters()) << "bf16 gradients";
  EXPECT_LT(costs.gpu_whole_bytes() + costs.gpu_divided_bytes(), costs.memory_bytes()) << "of a whole batch";
}

TEST(Grid, SharesOfAGpuMayBeAskedFor) {
  auto spec = Spec();
  const auto before = Cells(spec);
  spec.set_slots_per_gpu("2");
  spec.mutable_sizes(1)->set_slots_per_gpu("8");
  const auto cells = Cells(spec);
  for (size_t i = 0; i < cells.size(); ++i) EXPECT_EQ(cells[i].identity, before[i].identity) << cells[i].name;
  EXPECT_EQ(Named(cells, "lconv-own-s0").slots_per_gpu, 2);
  EXPECT_EQ(Named(cells, "lconv-nano-s0").slots_per_gpu, 8);
  EXPECT_EQ(Named(cells, "lconv-nano-s0-ft").slots_per_gpu, 8);
  spec.clear_slots_per_gpu();
  spec.mutable_sizes(1)->clear_slots_per_gpu();
  spec.set_devices("2");
  EXPECT_EQ(Named(Cells(spec), "lconv-nano-s0").slots_per_gpu, 1) << "ranks have whole devices";
}

TEST(Grid, DevicesAreNoPartOfAnIdentity) {
  auto spec = Spec();
  const auto before = Cells(spec);
  spec.set_devices("2");
  spec.mutable_sizes(1)->set_devices("auto");
  const auto cells = Cells(spec);
  ASSERT_EQ(cells.size(), before.size());
  for (size_t i = 0; i < cells.size(); ++i) EXPECT_EQ(cells[i].identity, before[i].identity) << cells[i].name;
  EXPECT_EQ(Named(before, "lconv-own-s0").devices, 1);
  EXPECT_EQ(Named(cells, "lconv-own-s0").devices, 2);
  EXPECT_EQ(Named(cells, "lconv-own-s0-ft").devices, 2) << "as its pretraining";
  EXPECT_EQ(Named(cells, "lconv-nano-s0").devices, 0);
  EXPECT_EQ(Named(cells, "lconv-nano-s0").most_devices, 4) << "the sequences of a batch";
  EXPECT_EQ(Named(cells, "lconv-nano-s0-ft").most_devices, 2);
  EXPECT_EQ(cells[0].devices, 1) << "a preparation";
  const v1::Costs& costs = Named(cells, "lconv-nano-s0").costs;
  EXPECT_GT(costs.replicated_bytes(), 4 * costs.parameters());
  EXPECT_LT(costs.replicated_bytes(), costs.memory_bytes());
}

TEST(Grid, ExpandsParentsBeforeChildren) {
  const auto cells = Cells(Spec());
  ASSERT_EQ(cells.size(), 2u + 2 * 2 * 2 * 2);
  EXPECT_EQ(cells[0].name, "prepare");
  EXPECT_EQ(cells[1].name, "prepare-ft");
  EXPECT_EQ(cells[2].name, "transformer-own-s0");
  EXPECT_EQ(cells[3].name, "transformer-own-s0-ft");
  EXPECT_EQ(cells[4].name, "transformer-own-s3");
  std::set<std::string> known, names;
  for (const Cell& cell : cells) {
    for (const CellParent& parent : cell.parents) EXPECT_TRUE(known.count(parent.identity)) << cell.name;
    EXPECT_TRUE(known.insert(cell.identity).second) << cell.name;
    EXPECT_TRUE(names.insert(cell.name).second) << cell.name;
  }
  const Cell& finetune = Named(cells, "lconv-nano-s3-ft");
  ASSERT_EQ(finetune.parents.size(), 2u);
  EXPECT_EQ(finetune.parents[0].input_name, "data");
  EXPECT_EQ(finetune.parents[0].identity, cells[1].identity);
  EXPECT_EQ(Named(cells, "lconv-nano-s3").parents[0].identity, cells[0].identity);
  EXPECT_EQ(finetune.parents[1].input_name, "model");
  EXPECT_EQ(finetune.parents[1].identity, Named(cells, "lconv-nano-s3").identity);
  EXPECT_EQ(RunOf(finetune)["parent"], Named(cells, "lconv-nano-s3").identity);
}

TEST(Grid, ResolvesEveryFieldOfARun) {
  const auto cells = Cells(Spec());
  const Json run = RunOf(Named(cells, "transformer-own-s3"));
  EXPECT_EQ(run["model"]["shape"]["vocabulary"], 512);
  EXPECT_EQ(run["model"]["shape"]["encoder_layers"], 2);
  EXPECT_EQ(run["data"], cells[0].identity);
  EXPECT_EQ(run["seed"], 3);
  EXPECT_EQ(run["steps"], 10);
  EXPECT_EQ(run["objective"], Json::parse(R"({"name":"span_corruption","input_length":64,"noise_density":0.15,
                                              "mean_span_length":3.0})"));
  EXPECT_EQ(run["optimizer"]["warmup_steps"], 10000);
  EXPECT_EQ(run["divergence"]["loss_spike"], 2.0);
  const Json finetune = RunOf(Named(cells, "transformer-own-s3-ft"));
  EXPECT_EQ(finetune["optimizer"]["schedule"], "constant");
  EXPECT_EQ(finetune["optimizer"]["learning_rate"], 1e-3);
  EXPECT_EQ(finetune["dropout"], 0.1);
  const Json prepare = RunOf(cells[0]);
  EXPECT_EQ(prepare["corpus"]["format"], "text");
  EXPECT_EQ(prepare["corpus"]["files"].size(), 1u);
  EXPECT_FALSE(prepare["corpus"]["files"][0].contains("path"));
  EXPECT_FALSE(prepare["tokenizer"].contains("spells")) << "the tokenizer is given";
  EXPECT_EQ(prepare["tasks"], Json::array());
  const Json tasks = RunOf(cells[1]);
  EXPECT_EQ(tasks["data"], cells[0].identity);
  EXPECT_EQ(tasks["tasks"][0]["files"][0]["name"], "task:wordnet_pos.txt");
  EXPECT_FALSE(tasks.contains("corpus"));
}

TEST(Grid, PreparationsAreGivenTheFilesThatTheyRead) {
  const auto cells = Cells(Spec());
  const auto roles = [](const Cell& cell) {
    std::vector<std::string> all;
    for (const auto& file : cell.files) all.push_back(file.role());
    return all;
  };
  EXPECT_EQ(roles(cells[0]), (std::vector<std::string>{"corpus", "tokenizer"}));
  EXPECT_EQ(roles(cells[1]), (std::vector<std::string>{"task:wordnet_pos"}));
}

Json CorpusWith(const std::function<void(v1::SweepSpec*)>& change, std::initializer_list<const char*> roles) {
  v1::SweepSpec spec = Spec();
  spec.clear_finetuning();
  change(&spec);
  return RunOf(Cells(spec, Manifest(roles))[0])["corpus"];
}

TEST(Grid, TellsThePreparationHowTextIsRead) {
  const Json jsonl = CorpusWith(
      [](v1::SweepSpec* s) {
        s->mutable_data()->set_format("jsonl");
        s->mutable_data()->set_field("body");
        s->mutable_data()->set_skip_bad_rows(true);
        s->mutable_data()->add_valid("v");
      },
      {"corpus", "valid"});
  EXPECT_EQ(jsonl["format"], "jsonl");
  EXPECT_EQ(jsonl["field"], "body");
  EXPECT_EQ(jsonl["skip_bad_rows"], true);
  EXPECT_EQ(jsonl["valid_files"][0]["name"], "valid.txt");
  EXPECT_FALSE(jsonl.contains("validation_fraction"));
  EXPECT_FALSE(jsonl.contains("document"));
  const Json tsv = CorpusWith(
      [](v1::SweepSpec* s) {
        s->mutable_data()->set_format("tsv");
        s->mutable_data()->set_column("3");
      },
      {"corpus"});
  EXPECT_EQ(tsv["column"], "3");
}

TEST(Grid, NewFieldsAtTheirDefaultsChangeNoIdentity) {
  v1::SweepSpec spec = Spec();
  const std::string before = Cells(spec)[0].identity;
  spec.mutable_data()->set_format("text");
  spec.mutable_data()->set_skip_bad_rows(false);
  EXPECT_EQ(Cells(spec)[0].identity, before);
  spec.mutable_data()->set_skip_bad_rows(true);
  EXPECT_NE(Cells(spec)[0].identity, before);
}

TEST(Grid, PreparesBuiltDataSetsAndMixtures) {
  const Json built = CorpusWith(
      [](v1::SweepSpec* s) {
        s->mutable_data()->clear_text();
        s->mutable_data()->set_path("d");
      },
      {"dataset"});
  EXPECT_EQ(built, (Json{{"format", "built"}, {"files", built["files"]}}));
  EXPECT_EQ(built["files"][0]["name"], "dataset.txt");
  const auto mix = [](v1::SweepSpec* s) {
    s->mutable_data()->clear_text();
    s->mutable_data()->add_mixture()->set_path("x/web");
    s->mutable_data()->add_mixture()->set_path("y");
    s->mutable_data()->mutable_mixture(1)->set_rate(2);
    s->mutable_data()->mutable_mixture(1)->set_name("books");
  };
  const Json mixture = CorpusWith(mix, {"dataset:web", "dataset:books"});
  EXPECT_EQ(mixture["format"], "mixture");
  EXPECT_EQ(mixture["parts"][0]["name"], "web");
  EXPECT_EQ(mixture["parts"][0]["rate"], 1.0);
  EXPECT_EQ(mixture["parts"][1]["rate"], 2.0);
  EXPECT_EQ(mixture["parts"][1]["files"][0]["name"], "dataset:books.txt");
  v1::SweepSpec spec = Spec();
  mix(&spec);
  EXPECT_THAT(Expand(spec, Manifest({"dataset:web", "task:wordnet_pos"})).error().message,
              HasSubstr("no file of the dataset:books"));
}

TEST(Grid, WritesWhatASchedulesEndNeedsAndZLossOnlyIfThereIsOne) {
  v1::SweepSpec spec = Spec();
  const Json plain = RunOf(Named(Cells(spec), "transformer-own-s3"));
  EXPECT_FALSE(plain.contains("z_loss"));
  EXPECT_FALSE(plain["optimizer"].contains("final_fraction"));
  spec.mutable_pretraining()->set_z_loss(1e-4);
  spec.mutable_pretraining()->mutable_optimizer()->set_schedule("cosine");
  const Json cosine = RunOf(Named(Cells(spec), "transformer-own-s3"));
  EXPECT_EQ(cosine["z_loss"], 1e-4);
  EXPECT_EQ(cosine["optimizer"]["final_fraction"], 0.1);
  EXPECT_FALSE(cosine["optimizer"].contains("decay_fraction"));
  spec.mutable_pretraining()->mutable_optimizer()->set_schedule("wsd");
  spec.mutable_pretraining()->mutable_optimizer()->set_decay_fraction(0.2);
  const Json wsd = RunOf(Named(Cells(spec), "transformer-own-s3"));
  EXPECT_EQ(wsd["optimizer"]["final_fraction"], 0.0);
  EXPECT_EQ(wsd["optimizer"]["decay_fraction"], 0.2);
}

TEST(Grid, WritesEachObjectiveWithItsOwnNumbers) {
  v1::SweepSpec spec = Spec();
  EXPECT_FALSE(RunOf(Named(Cells(spec), "transformer-own-s3")).contains("join"));
  spec.mutable_pretraining()->set_join("none");
  EXPECT_EQ(RunOf(Named(Cells(spec), "transformer-own-s3"))["join"], "none");
  spec.mutable_pretraining()->set_objective("bert");
  EXPECT_EQ(RunOf(Named(Cells(spec), "transformer-own-s3"))["objective"],
            Json::parse(R"({"name":"bert","input_length":64,"noise_density":0.15})"));
  spec.mutable_pretraining()->set_objective("prefix_lm");
  EXPECT_EQ(RunOf(Named(Cells(spec), "transformer-own-s3"))["objective"],
            Json::parse(R"({"name":"prefix_lm","input_length":64,"target_length":64})"));
}

TEST(Grid, CostsAreThoseOfTheObjectivesLengths) {
  v1::SweepSpec spec = Spec();
  const double spans = Named(Cells(spec), "transformer-own-s3").costs.forward_flops();
  spec.mutable_pretraining()->set_objective("prefix_lm");
  const double prefix = Named(Cells(spec), "transformer-own-s3").costs.forward_flops();
  spec.mutable_pretraining()->set_target_length(14);  // what span corruption's targets have
  EXPECT_EQ(Named(Cells(spec), "transformer-own-s3").costs.forward_flops(), spans);
  spec.mutable_pretraining()->clear_target_length();
  spec.mutable_pretraining()->set_objective("bert");
  EXPECT_EQ(Named(Cells(spec), "transformer-own-s3").costs.forward_flops(), prefix);
  EXPECT_GT(prefix, spans);
}

TEST(Grid, QuickstartHasTwentyFourOfEachAndTwoToPrepare) {
  const auto spec = ReadSweepFile(ALLOMETRY_SOURCE_DIR "/examples/quickstart.yaml");
  ASSERT_TRUE(spec.ok()) << spec.error().message;
  int count[4] = {};
  for (const Cell& cell : Cells(*spec)) ++count[cell.kind];
  EXPECT_EQ(count[v1::RUN_KIND_PREPARE], 2);
  EXPECT_EQ(count[v1::RUN_KIND_PRETRAIN], 24);
  EXPECT_EQ(count[v1::RUN_KIND_FINETUNE], 24);
}

TEST(Grid, AxesCrossAndNameCells) {
  v1::SweepSpec spec = Spec();
  spec.mutable_architectures()->RemoveLast();
  spec.mutable_axes()->add_layers(1);
  spec.mutable_axes()->add_layers(3);
  spec.mutable_axes()->add_d_ff(32);
  spec.clear_finetuning();
  const auto cells = Cells(spec);
  ASSERT_EQ(cells.size(), 1u + 2 * 2 * 2);
  const Cell& cell = Named(cells, "transformer-own-nl3-ff32-s0");
  EXPECT_EQ(cell.size, "own-nl3-ff32");
  EXPECT_EQ(RunOf(cell)["model"]["shape"]["decoder_layers"], 3);
  EXPECT_EQ(RunOf(cell)["model"]["shape"]["d_ff"], 32);
}

TEST(Grid, CostsAreThoseOfTheArchitecture) {
  const auto cells = Cells(Spec());
  const v1::Costs& costs = Named(cells, "transformer-own-s0").costs;
  // 512 x 16 embedding; per encoder layer 4 x 16 x 16 attention, 2 x 16 x 64 feed-forward, 2 norms; decoder with
  // cross-attention.
  const int64_t attention = 4 * 16 * 16, feed_forward = 2 * 16 * 64, norm = 16;
  const int64_t encoder = attention + feed_forward + 2 * norm, decoder = 2 * attention + feed_forward + 3 * norm;
  const int64_t body = 2 * encoder + 2 * decoder + 2 * norm + 2 * 32 * 2;
  EXPECT_EQ(costs.non_embedding_parameters(), body);
  EXPECT_EQ(costs.parameters(), body + 512 * 16);
  EXPECT_DOUBLE_EQ(costs.training_flops(), 3.0 * static_cast<double>(costs.forward_flops()) * 10 * 4);
  EXPECT_EQ(costs.steps(), 10);
  EXPECT_GT(costs.memory_bytes(), 0);
}

TEST(Grid, BudgetsBecomeSteps) {
  v1::SweepSpec spec = Spec();
  spec.clear_finetuning();
  v1::PretrainingSpec* p = spec.mutable_pretraining();
  const auto steps_of = [&] { return Named(Cells(spec), "transformer-own-s0").costs.steps(); };
  const auto before = Named(Cells(spec), "transformer-own-s0").costs;
  const double tokens_per_step = before.tokens() / 10;
  p->clear_steps();
  p->set_tokens(tokens_per_step * 7 + 1);
  EXPECT_EQ(steps_of(), 8);
  p->clear_tokens();
  p->set_tokens_per_parameter(2);
  EXPECT_EQ(steps_of(), std::ceil(2.0 * static_cast<double>(before.non_embedding_parameters()) / tokens_per_step));
  p->clear_tokens_per_parameter();
  p->set_flops(before.training_flops() / 10 * 6.4);
  EXPECT_EQ(steps_of(), 6);
  p->set_flops(1);
  EXPECT_EQ(steps_of(), 1);
}

TEST(Grid, OwnTrainersGetTheCorpusAndTheirOptions) {
  const auto spec = ReadSweepFile(ALLOMETRY_SOURCE_DIR "/examples/ngram.yaml");
  ASSERT_TRUE(spec.ok()) << spec.error().message;
  const auto cells = Cells(*spec, Manifest({"corpus"}));
  ASSERT_EQ(cells.size(), 8u);
  const Cell& cell = Named(cells, "witten_bell-order3-s1");
  EXPECT_EQ(cell.trainer, "ngram");
  EXPECT_TRUE(cell.parents.empty());
  EXPECT_EQ(cell.files.size(), 1u);
  const Json run = RunOf(cell);
  EXPECT_EQ(run["model"]["options"], Json::parse(R"({"order":3,"vocabulary":4096,"scale":0.1})"));
  EXPECT_EQ(run["corpus"]["files"][0]["sha256"], common::Sha256Hex("corpus"));
  EXPECT_FALSE(run.contains("data"));
}

TEST(Grid, WhatIsBuiltForALengthIsBuiltForPretrainings) {
  v1::SweepSpec spec = Spec();
  spec.mutable_architectures(0)->set_name("mixer");
  const auto cells = Cells(spec);
  const Json expected{{"decoder", "attention"}, {"input_length", 64}, {"target_length", 14}};
  EXPECT_EQ(RunOf(Named(cells, "mixer-nano-s0"))["model"]["options"], expected);
  EXPECT_EQ(RunOf(Named(cells, "mixer-nano-s0-ft"))["model"]["options"], expected) << "a child has its parent's";
  spec.mutable_pretraining()->set_input_length(32);
  EXPECT_LT(Named(Cells(spec), "mixer-nano-s0").costs.parameters(), Named(cells, "mixer-nano-s0").costs.parameters());
}

TEST(Grid, RefusesLongerSequencesThanAnArchitectureIsBuiltFor) {
  v1::SweepSpec spec = Spec();
  auto* mixer = spec.mutable_architectures(0);
  mixer->set_name("mixer");
  auto& options = *mixer->mutable_options()->mutable_fields();
  options["input_length"].set_number_value(63);
  auto cells = Expand(spec, FullManifest());
  ASSERT_FALSE(cells);
  EXPECT_THAT(cells.error().message, HasSubstr("mixer is built for 63 input tokens, and pretraining has 64"));
  options.erase("input_length");
  options["decoder"].set_string_value("causal_mixing");
  spec.mutable_finetuning()->set_target_length(15);
  cells = Expand(spec, FullManifest());
  ASSERT_FALSE(cells);
  EXPECT_THAT(cells.error().message, HasSubstr("mixer is built for 14 target tokens, and finetuning has 15"));
}

TEST(Grid, RefusesAManifestWithoutItsFiles) {
  EXPECT_THAT(Expand(Spec(), Manifest({"task:wordnet_pos"})).error().message, HasSubstr("corpus"));
  EXPECT_THAT(Expand(Spec(), Manifest({"corpus"})).error().message, HasSubstr("wordnet_pos"));
  auto files = FullManifest();
  files[0].set_sha256("short");
  EXPECT_THAT(Expand(Spec(), files).error().message, HasSubstr("64 hexadecimal"));
}

TEST(Grid, RefusesOneRunUnderTwoNames) {
  v1::SweepSpec spec = Spec();
  v1::ArchitectureSpec* twin = spec.add_architectures();
  twin->set_name("transformer");
  twin->set_label("other");
  EXPECT_THAT(Expand(spec, FullManifest()).error().message, HasSubstr("the same run"));
}

std::vector<std::string> Identities(const v1::SweepSpec& spec, const std::vector<v1::ManifestFile>& manifest) {
  std::vector<std::string> identities;
  for (const Cell& cell : Cells(spec, manifest)) identities.push_back(cell.identity);
  return identities;
}

TEST(Identity, IgnoresWhatCannotChangeAResult) {
  const auto expected = Identities(Spec(), FullManifest());
  const std::vector<std::function<void(v1::SweepSpec*)>> changes{
      [](auto* s) { s->set_name("another"); },
      [](auto* s) { s->set_description("words"); },
      [](auto* s) { (*s->mutable_tags())["k"] = "v"; },
      [](auto* s) { s->mutable_scheduling()->set_priority(7); },
      [](auto* s) { s->mutable_limits()->set_threads(3); },
      [](auto* s) { s->mutable_budget()->set_flops(1e20); },
      [](auto* s) { s->set_precision("auto"); },
      [](auto* s) { s->mutable_architectures(0)->set_label("renamed"); },
      [](auto* s) { s->mutable_sizes(0)->set_name("renamed"); },
      [](auto* s) { s->mutable_pretraining()->set_noise_density(0.15); },  // the default, written out
      [](auto* s) { s->mutable_finetuning()->set_select("last"); },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    v1::SweepSpec spec = Spec();
    changes[i](&spec);
    EXPECT_EQ(Identities(spec, FullManifest()), expected) << "change " << i;
  }
  auto moved = FullManifest();
  for (auto& file : moved) file.set_path("/elsewhere");
  std::swap(moved.front(), moved.back());
  EXPECT_EQ(Identities(Spec(), moved), expected);
}

// Which of the text's preparation, pretraining and fine-tuning must change with a field.
struct Change {
  const char* what;
  std::function<void(v1::SweepSpec*)> apply;
  bool text, pretrain, finetune;
};

TEST(Identity, ChangesWithEveryFieldThatAffectsTheResult) {
  const std::vector<Change> changes{
      {"vocabulary", [](auto* s) { s->mutable_tokenizer()->set_vocabulary(513); }, true, true, true},
      {"document", [](auto* s) { s->mutable_data()->set_document("line"); }, true, true, true},
      {"validation", [](auto* s) { s->mutable_data()->set_validation_fraction(0.02); }, true, true, true},
      {"d_ff", [](auto* s) { s->mutable_sizes(0)->set_d_ff(72); }, false, true, true},
      {"steps", [](auto* s) { s->mutable_pretraining()->set_steps(11); }, false, true, true},
      {"batch", [](auto* s) { s->mutable_pretraining()->set_batch_sequences(5); }, false, true, true},
      {"length", [](auto* s) { s->mutable_pretraining()->set_input_length(65); }, false, true, true},
      {"density", [](auto* s) { s->mutable_pretraining()->set_noise_density(0.2); }, false, true, true},
      {"objective", [](auto* s) { s->mutable_pretraining()->set_objective("bert"); }, false, true, true},
      {"join", [](auto* s) { s->mutable_pretraining()->set_join("none"); }, false, true, true},
      {"span", [](auto* s) { s->mutable_pretraining()->set_mean_span_length(4); }, false, true, true},
      {"dropout", [](auto* s) { s->mutable_pretraining()->set_dropout(0.1); }, false, true, true},
      {"examples", [](auto* s) { s->mutable_pretraining()->set_evaluation_examples(5); }, false, true, true},
      {"every", [](auto* s) { s->mutable_pretraining()->set_evaluate_every_steps(5); }, false, true, true},
      {"spike", [](auto* s) { s->mutable_pretraining()->set_loss_spike(3); }, false, true, true},
      {"rate", [](auto* s) { s->mutable_pretraining()->mutable_optimizer()->set_learning_rate(1); }, false, true, true},
      {"schedule", [](auto* s) { s->mutable_pretraining()->mutable_optimizer()->set_schedule("constant"); }, false,
       true, true},
      {"clip", [](auto* s) { s->mutable_pretraining()->mutable_optimizer()->set_clip_norm(1); }, false, true, true},
      {"seed", [](auto* s) { s->set_seeds(0, 9); }, false, true, true},
      {"precision", [](auto* s) { s->set_precision("bf16"); }, false, true, true},
      {"ft steps", [](auto* s) { s->mutable_finetuning()->set_steps(6); }, false, false, true},
      {"ft batch", [](auto* s) { s->mutable_finetuning()->set_batch_sequences(3); }, false, false, true},
      {"ft input", [](auto* s) { s->mutable_finetuning()->set_input_length(99); }, false, false, true},
      {"ft target", [](auto* s) { s->mutable_finetuning()->set_target_length(9); }, false, false, true},
      {"ft dropout", [](auto* s) { s->mutable_finetuning()->set_dropout(0); }, false, false, true},
      {"ft select", [](auto* s) { s->mutable_finetuning()->set_select("best"); }, false, false, true},
      {"ft cap", [](auto* s) { s->mutable_finetuning()->set_mixture_cap(9); }, false, false, true},
      {"ft shuffle", [](auto* s) { s->mutable_finetuning()->set_shuffle_labels(true); }, false, false, true},
      {"task limit", [](auto* s) { s->mutable_finetuning()->mutable_tasks(0)->set_max_train(9); }, false, false, true},
  };
  const auto before = Identities(Spec(), FullManifest());
  for (const Change& change : changes) {
    v1::SweepSpec spec = Spec();
    change.apply(&spec);
    const auto after = Identities(spec, FullManifest());
    EXPECT_EQ(after[0] != before[0], change.text) << change.what;
    EXPECT_EQ(after[1] != before[1], change.text || change.what == std::string("task limit")) << change.what;
    EXPECT_EQ(after[2] != before[2], change.pretrain) << change.what;
    EXPECT_EQ(after[3] != before[3], change.finetune) << change.what;
  }
  v1::SweepSpec prefix = Spec(), shorter = Spec();
  prefix.mutable_pretraining()->set_objective("prefix_lm");
  shorter.mutable_pretraining()->set_objective("prefix_lm");
  shorter.mutable_pretraining()->set_target_length(32);
  EXPECT_NE(Identities(prefix, FullManifest())[2], Identities(shorter, FullManifest())[2]);
  v1::SweepSpec said = Spec();  // what is the default, written out
  said.mutable_pretraining()->set_objective("span_corruption");
  said.mutable_pretraining()->set_join("end_mark");
  EXPECT_EQ(Identities(said, FullManifest()), before);
  auto other_text = FullManifest();
  other_text[0].set_sha256(common::Sha256Hex("other text"));
  EXPECT_NE(Identities(Spec(), other_text)[2], before[2]);
}

TEST(Identity, DoesNotDependOnTheOrderOfKeysAndLeavesDefaultsOut) {
  const Json a = Json::parse(R"({"kind":"pretrain","trainer":"x","steps":3,"objective":{"name":"span_corruption"}})");
  const Json b = Json::parse(R"({"steps":3,"trainer":"x","kind":"pretrain"})");
  EXPECT_EQ(IdentityOf(a, "auto"), IdentityOf(b, "auto"));
  EXPECT_NE(IdentityOf(a, "auto"), IdentityOf(a, "fp32"));
  const Json other = Json::parse(R"({"steps":3,"trainer":"x","kind":"pretrain","objective":{"name":"other"}})");
  EXPECT_NE(IdentityOf(a, "auto"), IdentityOf(other, "auto"));
}

// Results in users' databases are found by these: a change here orphans them all.
TEST(Identity, IsFrozen) {
  const Json run = Json::parse(R"({"kind":"pretrain","trainer":"builtin","seed":1,"dropout":0.0,
    "model":{"architecture":"glu","options":{"activation":"sigmoid","tied_embedding":true}}})");
  EXPECT_EQ(IdentityOf(run, "auto"),
            common::Sha256Hex(R"({"identity_version":1,"run":{"kind":"pretrain","model":{"architecture":"glu"},)"
                              R"("seed":1,"trainer":"builtin"}})"));
}

}  // namespace
}  // namespace allometry::coordinator
