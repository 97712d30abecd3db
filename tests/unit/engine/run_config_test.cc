#include "worker/trainer/engine/run_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace allometry::trainer {
namespace {

using common::Json;
using testing::HasSubstr;

Json Pretraining() {
  return Json::parse(R"({"kind": "pretrain", "trainer": "builtin", "data": "0123",
    "model": {"architecture": "transformer", "options": {},
      "shape": {"encoder_layers": 2, "decoder_layers": 2, "d_model": 16, "d_ff": 64, "heads": 2, "d_kv": 8,
                "vocabulary": 512}},
    "objective": {"name": "span_corruption", "input_length": 128, "noise_density": 0.15, "mean_span_length": 3.0},
    "optimizer": {"name": "adafactor", "learning_rate": 0.1, "schedule": "inverse_sqrt", "warmup_steps": 100},
    "batch_sequences": 16, "steps": 1600, "seed": 3, "evaluation": {"examples": 64, "every_steps": 10},
    "divergence": {"loss_spike": 1.5}})");
}

Json Finetuning() {
  Json run = Pretraining();
  run["kind"] = "finetune";
  run["tasks"] = Json::parse(R"([{"name": "wordnet_pos", "max_train": 100}, "wordnet_wic"])");
  for (const char* key : {"objective", "evaluation"}) run.erase(key);
  run["mixture"] = {{"cap", 50}};
  run["select"] = "best";
  return run;
}

std::string PretrainError(const Json& run) {
  auto config = ParsePretrain(run);
  return config ? "accepted" : config.error().message;
}

TEST(RunConfigTest, ReadsAPretraining) {
  auto config = ParsePretrain(Pretraining());
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->training.model.shape.d_model, 16);
  EXPECT_EQ(config->training.lengths.inputs, 128);
  EXPECT_EQ(config->training.lengths.targets, 29);
  EXPECT_EQ(config->training.steps, 1600);
  EXPECT_EQ(config->training.seed, 3u);
  EXPECT_EQ(config->training.evaluate_every_steps, 10);
  EXPECT_EQ(config->evaluation_examples, 64);
  EXPECT_EQ(config->training.divergence.loss_spike, 1.5);
  EXPECT_EQ(config->training.optimization.schedule.learning_rate, 0.1);
}

TEST(RunConfigTest, DefaultsAreT5s) {
  Json run = Pretraining();
  for (const char* key : {"objective", "optimizer", "batch_sequences", "seed", "evaluation", "divergence"})
    run.erase(key);
  auto config = ParsePretrain(run);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->objective.name, "span_corruption");
  EXPECT_EQ(config->objective.input_length, 512);
  EXPECT_EQ(config->join, Join::kEndMark);
  EXPECT_EQ(config->training.lengths.targets, 114);
  EXPECT_EQ(config->training.batch_sequences, 128);
  EXPECT_EQ(config->training.dropout, 0.0);
  EXPECT_DOUBLE_EQ(config->training.optimization.schedule.RateAt(1), 0.01);
  EXPECT_DOUBLE_EQ(config->training.optimization.schedule.RateAt(40'000), 0.005);
  EXPECT_EQ(config->training.optimization.optimizer.name, "adafactor");
}

TEST(RunConfigTest, EachObjectiveHasItsOwnNumbers) {
  Json run = Pretraining();
  run["join"] = "none";
  run["objective"] = {{"name", "prefix_lm"}, {"input_length", 100}, {"target_length", 40}};
  auto config = ParsePretrain(run);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->join, Join::kNone);
  EXPECT_EQ(config->training.lengths.inputs, 100);
  EXPECT_EQ(config->training.lengths.targets, 40);
  run["objective"] = {{"name", "prefix_lm"}, {"input_length", 100}};
  EXPECT_EQ(ParsePretrain(run)->training.lengths.targets, 100);
  run["objective"] = {{"name", "bert"}, {"input_length", 100}, {"noise_density", 0.2}};
  EXPECT_EQ(ParsePretrain(run)->training.lengths.targets, 100);
  run["objective"] = {{"name", "bert"}, {"mean_span_length", 3.0}};
  EXPECT_THAT(PretrainError(run), HasSubstr("run.objective.mean_span_length is unknown"));
  run["objective"] = {{"name", "prefix_lm"}, {"input_length", 100}, {"target_length", 101}};
  EXPECT_THAT(PretrainError(run), HasSubstr("run.objective.target_length"));
  run["objective"] = {{"input_length", 8192}};
  EXPECT_THAT(PretrainError(run), HasSubstr("sentinels"));
}

TEST(RunConfigTest, SchedulesThatEndKnowTheRunsLength) {
  Json run = Pretraining();
  run["optimizer"] = {{"schedule", "cosine"}, {"warmup_steps", 100}};
  Schedule schedule = ParsePretrain(run)->training.optimization.schedule;
  EXPECT_DOUBLE_EQ(schedule.RateAt(1), 0.0001) << "linear warm-up";
  EXPECT_NEAR(schedule.RateAt(1600), 0.001, 1e-12);
  run["optimizer"] = {{"schedule", "wsd"}, {"decay_fraction", 0.5}, {"final_fraction", 0.5}, {"warmup", "hold"}};
  schedule = ParsePretrain(run)->training.optimization.schedule;
  EXPECT_DOUBLE_EQ(schedule.RateAt(1), 0.01);
  EXPECT_DOUBLE_EQ(schedule.RateAt(1200), 0.0075);
  EXPECT_DOUBLE_EQ(schedule.RateAt(1600), 0.005);
  run["optimizer"] = {{"schedule", "cosine"}, {"decay_fraction", 0.5}};
  EXPECT_THAT(PretrainError(run), HasSubstr("run.optimizer.decay_fraction is unknown"));
  run["optimizer"] = {{"schedule", "constant"}, {"final_fraction", 0.5}};
  EXPECT_THAT(PretrainError(run), HasSubstr("run.optimizer.final_fraction is unknown"));
}

TEST(RunConfigTest, ReadsZLossAndActivationCheckpointing) {
  Json run = Pretraining();
  EXPECT_EQ(ParsePretrain(run)->training.z_loss, 0.0);
  run["z_loss"] = 1e-4;
  EXPECT_EQ(ParsePretrain(run)->training.z_loss, 1e-4);
  run["z_loss"] = -1;
  EXPECT_THAT(PretrainError(run), HasSubstr("run.z_loss"));
  EXPECT_EQ(ParseRunConfig({{"run", Pretraining()}})->execution.activation_checkpointing, std::nullopt);
  for (const bool asked : {false, true}) {
    const Json execution{{"activation_checkpointing", asked}};
    EXPECT_EQ(ParseRunConfig({{"run", Pretraining()}, {"execution", execution}})->execution.activation_checkpointing,
              asked);
  }
}

TEST(RunConfigTest, ReadsAFinetuning) {
  auto config = ParseFinetune(Finetuning());
  ASSERT_TRUE(config) << config.error().message;
  ASSERT_EQ(config->tasks.size(), 2u);
  EXPECT_EQ(config->tasks[0].max_train, 100);
  EXPECT_EQ(config->tasks[1].name, "wordnet_wic");
  EXPECT_EQ(config->mixture_cap, 50);
  EXPECT_EQ(config->select, "best");
  EXPECT_EQ(config->training.dropout, 0.1);
  EXPECT_EQ(config->training.lengths.inputs, 128);
  EXPECT_EQ(config->training.lengths.targets, 8);
}

TEST(RunConfigTest, WhatIsBuiltForALengthCutsInputsOfFinetuningAndRefusesTheRest) {
  const auto model = [](Json run, const Json& options) {
    run["model"]["architecture"] = "mixer";
    run["model"]["options"] = options;
    return run;
  };
  EXPECT_EQ(PretrainError(model(Pretraining(), {{"input_length", 128}})), "accepted");
  EXPECT_THAT(PretrainError(model(Pretraining(), {{"input_length", 100}})), HasSubstr("run.objective"));
  const auto config = ParseFinetune(model(Finetuning(), {{"input_length", 100}}));
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->input_length, 100);
  EXPECT_EQ(config->training.lengths.inputs, 100);
  const Json short_targets{{"decoder", "causal_mixing"}, {"target_length", 7}};
  EXPECT_THAT(ParseFinetune(model(Finetuning(), short_targets)).error().message, HasSubstr("run.target_length is 8"));
}

TEST(RunConfigTest, EveryMistakeIsNamedByItsPath) {
  struct Case {
    const char* pointer;
    Json value;
    const char* message;
  };
  const Case cases[] = {
      {"/steps", 0, "run.steps"},
      {"/batch_sequences", "many", "run.batch_sequences"},
      {"/stepps", 5, "did you mean 'steps'?"},
      {"/optimizer/name", "adam", "run.optimizer.name is 'adam': allowed are adafactor, adamw"},
      {"/optimizer/learning_rate", -1, "run.optimizer.learning_rate"},
      {"/optimizer/warm_up", 1, "run.optimizer.warm_up is unknown"},
      {"/objective/noise_density", 2, "run.objective.noise_density"},
      {"/objective/name", "causal", "allowed are span_corruption, prefix_lm, bert"},
      {"/join", "eos", "run.join is 'eos': allowed are end_mark, none"},
      {"/divergence/loss_spike", "none", "run.divergence.loss_spike"},
      {"/model/architecture", "transfomer", "transformer"},
      {"/model/shape/heads", 0, "run.model.shape.heads"},
      {"/model/shape/depth", 2, "run.model.shape.depth"},
      {"/model/options", Json{{"no_such", 1}}, "run.model.options"},
      {"/numerics_version", 999, "run.numerics_version is 999"},
      {"/dropout", 1.5, "run.dropout"},
  };
  for (const Case& c : cases) {
    Json run = Pretraining();
    run[Json::json_pointer(c.pointer)] = c.value;
    EXPECT_THAT(PretrainError(run), HasSubstr(c.message)) << c.pointer;
  }
}

TEST(RunConfigTest, RequiredMembersAreAskedFor) {
  for (const char* key : {"model", "steps"}) {
    Json run = Pretraining();
    run.erase(key);
    EXPECT_THAT(PretrainError(run), HasSubstr("run." + std::string(key) + " is missing"));
  }
  Json run = Finetuning();
  run["tasks"] = Json::array();
  EXPECT_THAT(ParseFinetune(run).error().message, HasSubstr("run.tasks is empty"));
}

TEST(RunConfigTest, ReadsTheFile) {
  const Json file{{"contract_version", 1},
                  {"run", Pretraining()},
                  {"execution", {{"device", "cuda:1"}, {"threads", 2}, {"inputs", {{"data", "/x"}}}, {"news", 1}}}};
  auto config = ParseRunConfig(file);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->kind, "pretrain");
  EXPECT_EQ(config->execution.device, "cuda:1");
  EXPECT_EQ(config->execution.inputs.at("data"), "/x");
  EXPECT_EQ(config->run_sha256.size(), 64u);
  EXPECT_TRUE(
      ParseRunConfig({{"run", Pretraining()}, {"execution", {{"deterministic", true}}}})->execution.deterministic);
}

TEST(RunConfigTest, RefusesAWrongFile) {
  EXPECT_THAT(ParseRunConfig({{"contract_version", 2}, {"run", Pretraining()}}).error().message,
              HasSubstr("contract_version"));
  EXPECT_THAT(ParseRunConfig({{"contract_version", 1}}).error().message, HasSubstr("run is missing"));
  EXPECT_THAT(ParseRunConfig({{"run", {{"kind", "pretraining"}}}}).error().message,
              HasSubstr("did you mean 'pretrain'?"));
  EXPECT_THAT(ParseRunConfig({{"run", Pretraining()}, {"execution", {{"device", "tpu"}}}}).error().message,
              HasSubstr("execution.device is 'tpu'"));
}

TEST(RunConfigTest, EqualRunsHaveEqualHashes) {
  Json other = Pretraining();
  const std::string hash = ParseRunConfig({{"run", other}})->run_sha256;
  EXPECT_EQ(ParseRunConfig({{"run", other}, {"execution", {{"threads", 4}}}})->run_sha256, hash);
  other["seed"] = 4;
  EXPECT_NE(ParseRunConfig({{"run", other}})->run_sha256, hash);
}

}  // namespace
}  // namespace allometry::trainer
