#include "worker/trainer/engine/training_loop.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <numeric>
#include <optional>
#include <sstream>

#include "tests/unit/engine/temporary_folder.h"
#include "tests/unit/models/forwarding_model.h"
#include "worker/trainer/engine/greedy.h"
#include "worker/trainer/engine/stop_signal.h"

namespace allometry::trainer {
namespace {

using common::Json;
using testing::HasSubstr;

constexpr int64_t kRows = 8, kInput = 12, kTarget = 6, kVocabulary = 128;

TrainingConfig SmallConfig() {
  TrainingConfig config;
  config.model = {"transformer", {1, 1, 16, 32, 2, 8, kVocabulary}, Json::object()};
  config.optimization.schedule = {"inverse_sqrt", 0.05, 10, "hold"};
  config.batch_sequences = kRows;
  config.steps = 30;
  config.seed = 11;
  return config;
}

// A copying task of its own for each step: the targets are the first inputs.
HostBatch CopyBatch(int64_t step) {
  const auto generator = at::detail::createCPUGenerator(static_cast<uint64_t>(step));
  const at::Tensor inputs = at::randint(3, 40, {kRows, kInput}, generator, at::kLong);
  at::Tensor targets = inputs.slice(1, 0, kTarget).clone();
  for (int64_t row = 0; row < kRows; ++row) targets[row].slice(0, 2 + row % (kTarget - 1)).fill_(0);  // uneven lengths
  const int64_t tokens = targets.ne(0).sum().item<int64_t>();
  return {inputs, targets, tokens};
}

// Adds terms beside the likelihood: of each sequence the mean square of its first token's embedding, and how many of
// its inputs are odd.
class WithSideTerms : public ForwardingModel {
 public:
  WithSideTerms(const std::shared_ptr<Model>& inner, double weight) : ForwardingModel(inner), weight_(weight) {}
  Loss ComputeLoss(const Batch& batch) override {
    Loss loss = inner_->ComputeLoss(batch);
    const at::Tensor table = inner_->named_parameters()["shared.weight"];
    loss.side.AddAuxiliary(weight_ * at::embedding(table, batch.inputs_bs.select(1, 0)).square().mean(1).sum());
    loss.side.AddMean("odd", (batch.inputs_bs % 2).sum(), at::full({}, batch.inputs_bs.numel()));
    return loss;
  }

 private:
  double weight_;
};

// Runs out of memory whenever more rows than `limit` are trained on at once.
class WithinMemory : public WithSideTerms {
 public:
  WithinMemory(const std::shared_ptr<Model>& inner, int64_t limit) : WithSideTerms(inner, 0.0), limit_(limit) {}
  Loss ComputeLoss(const Batch& batch) override {
    Loss loss = WithSideTerms::ComputeLoss(batch);
    if (batch.inputs_bs.size(0) > limit_ + (recompute() ? 1 : 0))
      TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory.");
    return loss;
  }

 private:
  int64_t limit_;
};

// One attempt of a run in a folder.
struct Attempt {
  Ending ending;
  TrainingSummary summary;
  std::map<std::string, at::Tensor> weights;
};

class TrainingLoopTest : public testing::Test {
 protected:
  void TearDown() override { SetStopRequested(false); }

  Attempt Train(const TrainingConfig& config, const std::string& name, LoopWork work, Execution execution = {},
                bool bf16 = false) {
    at::set_num_threads(1);
    ModelSpec spec{config.model.architecture, config.model.shape, config.model.options, config.dropout};
    spec.z_loss = config.z_loss;
    std::shared_ptr<Model> model = MakeModel(spec, config.seed);
    if (side_weight_) model = std::make_shared<WithSideTerms>(model, *side_weight_);
    if (most_rows_) model = std::make_shared<WithinMemory>(model, *most_rows_);
    model->set_recompute(execution.activation_checkpointing.value_or(false));
    ModelState state(model, at::kCPU, bf16 ? at::kBFloat16 : at::kFloat);
    auto optimizer = *MakeOptimizer(config.optimization.optimizer, state.masters());
    CheckpointStore checkpoints(folder_ / name / "checkpoint", "run", [this](const std::string& s) { log_ += s; });
    std::filesystem::create_directories(folder_ / name);
    auto events = EventWriter::Open(folder_ / name / "events");
    TrainingLoop loop(
        {config, execution, at::kCPU, bf16 ? "bf16" : "fp32", state, *optimizer, checkpoints, *events, folder_ / name},
        std::move(work));
    Attempt attempt;
    attempt.ending = loop.Run();
    attempt.summary = loop.summary();
    for (const auto& [key, tensor] : state.Weights()) attempt.weights[key] = tensor.clone();
    return attempt;
  }

  static LoopWork CopyWork() {
    LoopWork work;
    work.make_batch = CopyBatch;
    work.evaluate = [](ModelState& state, bool) -> std::optional<Evaluation> {
      const HostBatch batch = CopyBatch(1'000'000);
      const double loss = state.model().TokenNll({batch.inputs_bs, batch.targets_bt}).sum().item<double>() /
                          static_cast<double>(batch.target_tokens);
      return Evaluation{-loss, {{"valid/loss", loss}}, {}};
    };
    work.input_length = kInput;
    return work;
  }

  // Stops before the given step's batch is trained on, as SIGTERM would.
  static LoopWork StoppingWork(int64_t step_to_stop) {
    LoopWork work = CopyWork();
    work.make_batch = [step_to_stop](int64_t step) {
      if (step == step_to_stop) SetStopRequested(true);
      return CopyBatch(step);
    };
    return work;
  }

  std::vector<Json> Events(const std::string& name) {
    std::ifstream file(folder_ / name / "events");
    std::vector<Json> events;
    for (std::string line; std::getline(file, line);) events.push_back(Json::parse(line));
    return events;
  }
  // The points of a series by step; a later attempt's point replaces an earlier one's.
  std::map<int64_t, double> Series(const std::string& name, const std::string& series) {
    std::map<int64_t, double> points;
    for (const Json& event : Events(name))
      if (event["event"] == "metric" && event["values"].contains(series))
        points[event["step"].get<int64_t>()] = event["values"][series].get<double>();
    return points;
  }

  static void ExpectEqualWeights(const Attempt& a, const Attempt& b) {
    ASSERT_EQ(a.weights.size(), b.weights.size());
    for (const auto& [name, tensor] : a.weights) EXPECT_TRUE(at::equal(tensor, b.weights.at(name))) << name;
  }

  TemporaryFolder folder_;
  std::string log_;
  std::optional<double> side_weight_;  // of WithSideTerms, if any
  std::optional<int64_t> most_rows_;   // of WithinMemory, if any
};

TEST_F(TrainingLoopTest, LearnsAndReports) {
  TrainingConfig config = SmallConfig();
  config.steps = 200;
  const Attempt attempt = Train(config, "run", CopyWork());
  ASSERT_EQ(attempt.ending.code, ExitCode::kDone) << attempt.ending.reason;
  const auto losses = Series("run", "train/loss");
  EXPECT_LT(losses.rbegin()->second, losses.begin()->second - 1.0);
  EXPECT_EQ(losses.size(), 100u) << "one point for every two steps";
  EXPECT_LT(attempt.summary.final.values.at("valid/loss"), std::log(37.0)) << "better than knowing the vocabulary only";
  EXPECT_GT(attempt.summary.device_seconds, 0);
  const auto events = Events("run");
  EXPECT_EQ(events.front()["event"], "start");
  EXPECT_EQ(events.front()["resumed_step"], 0);
  const auto rates = Series("run", "train/learning_rate");
  EXPECT_DOUBLE_EQ(rates.at(2), 0.05);
  EXPECT_DOUBLE_EQ(rates.at(40), 0.025);
}

TEST_F(TrainingLoopTest, MicroBatchesAddUpToTheWholeBatch) {
  TrainingConfig config = SmallConfig();
  config.steps = 1;
  const Attempt whole = Train(config, "whole", CopyWork());
  const auto norm = Series("whole", "train/grad_norm").at(1), loss = Series("whole", "train/loss").at(1);
  for (int64_t micro_batch : {4, 3, 1}) {
    Execution execution;
    execution.micro_batch = micro_batch;
    const std::string name = "micro" + std::to_string(micro_batch);
    Train(config, name, CopyWork(), execution);
    EXPECT_NEAR(Series(name, "train/loss").at(1), loss, 1e-5);
    EXPECT_NEAR(Series(name, "train/grad_norm").at(1), norm, 1e-5 * norm);
  }
}

TEST_F(TrainingLoopTest, ActivationCheckpointingChangesNoWeight) {
  TrainingConfig config = SmallConfig();
  config.dropout = 0.1;
  Execution recomputing;
  recomputing.activation_checkpointing = true;
  recomputing.micro_batch = 3;
  Execution keeping;
  keeping.micro_batch = 3;
  ExpectEqualWeights(Train(config, "keeping", CopyWork(), keeping),
                     Train(config, "recomputing", CopyWork(), recomputing));
}

TEST_F(TrainingLoopTest, ZLossIsTrainedOnAndNotReported) {
  TrainingConfig config = SmallConfig();
  config.steps = 1;
  const Attempt plain = Train(config, "plain", CopyWork());
  config.z_loss = 0.1;
  const Attempt with_z = Train(config, "with_z", CopyWork());
  EXPECT_EQ(Series("plain", "train/loss"), Series("with_z", "train/loss"));
  EXPECT_FALSE(at::equal(plain.weights.at("shared.weight"), with_z.weights.at("shared.weight")));
  Execution micro;
  micro.micro_batch = 3;
  Train(config, "micro", CopyWork(), micro);
  const double norm = Series("with_z", "train/grad_norm").at(1);
  EXPECT_NEAR(Series("micro", "train/grad_norm").at(1), norm, 1e-5 * norm);
}

// Auxiliary terms are means over the global batch's sequences, however it is divided; no reported loss has them.
TEST_F(TrainingLoopTest, SideTermsAreTrainedOnAndReportedOnTheirOwn) {
  TrainingConfig config = SmallConfig();
  config.steps = 1;
  const Attempt plain = Train(config, "plain", CopyWork());
  side_weight_ = 0.0;
  Train(config, "weightless", CopyWork());
  side_weight_ = 30.0;
  const Attempt whole = Train(config, "whole", CopyWork());
  const HostBatch batch = CopyBatch(1);
  const at::Tensor table = MakeModel({"transformer", config.model.shape, config.model.options}, config.seed)
                               ->named_parameters()["shared.weight"];
  const double expected = 30.0 * at::embedding(table, batch.inputs_bs.select(1, 0)).square().mean().item<double>();
  const double odd = (batch.inputs_bs % 2).to(at::kDouble).mean().item<double>();
  const double norm = Series("whole", "train/grad_norm").at(1);
  EXPECT_EQ(Series("plain", "train/loss"), Series("whole", "train/loss"));
  EXPECT_EQ(Series("plain", "train/grad_norm"), Series("weightless", "train/grad_norm"));
  EXPECT_GT(norm, Series("plain", "train/grad_norm").at(1) + 0.1);
  for (int64_t micro_batch : {8, 4, 3, 1}) {
    Execution execution;
    execution.micro_batch = micro_batch;
    const std::string name = "micro" + std::to_string(micro_batch);
    Train(config, name, CopyWork(), execution);
    EXPECT_NEAR(Series(name, "train/auxiliary_loss").at(1), expected, 1e-5 * expected);
    EXPECT_NEAR(Series(name, "train/odd").at(1), odd, 1e-12);
    EXPECT_NEAR(Series(name, "train/grad_norm").at(1), norm, 1e-5 * norm);
  }
  EXPECT_TRUE(Series("plain", "train/auxiliary_loss").empty());
}

// Jitter, dropout, dropped tokens and open sums of the metrics, over a stop between two metric points.
TEST_F(TrainingLoopTest, ASwitchTransformerThatWasStoppedGoesOnBitEqual) {
  TrainingConfig config = SmallConfig();
  config.model = {"switch", {4, 4, 16, 32, 2, 8, kVocabulary}, {{"placement", "every_4th"}}};
  config.dropout = 0.1;
  Execution execution;
  execution.log_every = 7;
  execution.micro_batch = 3;
  const Attempt straight = Train(config, "straight", CopyWork(), execution);
  ASSERT_EQ(Train(config, "stopped", StoppingWork(13), execution).ending.code, ExitCode::kStopped);
  SetStopRequested(false);
  const Attempt second = Train(config, "stopped", CopyWork(), execution);
  ASSERT_EQ(second.ending.code, ExitCode::kDone);
  EXPECT_NE(second.summary.resumed_step % 7, 0) << "between two metric points";
  ExpectEqualWeights(straight, second);
  for (const char* series : {"train/loss", "train/auxiliary_loss", "train/dropped_fraction"}) {
    EXPECT_EQ(Series("stopped", series), Series("straight", series)) << series;
    EXPECT_EQ(Series("stopped", series).size(), 5u) << series;
  }
  execution.activation_checkpointing = true;
  ExpectEqualWeights(straight, Train(config, "recomputing", CopyWork(), execution));
  EXPECT_EQ(Series("recomputing", "train/auxiliary_loss"), Series("straight", "train/auxiliary_loss"));
}

// The router of a bfloat16 model computes with float32 weights.
TEST_F(TrainingLoopTest, ARouterKeepsItsPrecisionInBfloat16) {
  TrainingConfig config = SmallConfig();
  config.model = {"switch", {4, 4, 16, 32, 2, 8, kVocabulary}, {{"placement", "every_4th"}}};
  auto model = MakeModel({config.model.architecture, config.model.shape, config.model.options}, config.seed);
  const at::Tensor router = model->named_parameters()["encoder.block.3.layer.1.mlp.router.classifier.weight"];
  const at::Tensor expert = model->named_parameters()["encoder.block.3.layer.1.mlp.experts.wi.weight"];
  const ModelState state(model, at::kCPU, at::kBFloat16);
  EXPECT_EQ(router.scalar_type(), at::kFloat);
  EXPECT_EQ(expert.scalar_type(), at::kBFloat16);
  config.steps = 40;
  const Attempt attempt = Train(config, "run", CopyWork(), {}, /*bf16=*/true);
  ASSERT_EQ(attempt.ending.code, ExitCode::kDone) << attempt.ending.reason;
  EXPECT_LT(Series("run", "train/loss").rbegin()->second, Series("run", "train/loss").begin()->second);
}

TEST_F(TrainingLoopTest, ClippingBoundsTheGradientThatIsUsed) {
  TrainingConfig config = SmallConfig();
  config.optimization.optimizer.name = "adamw";
  config.optimization.optimizer.epsilon = 1.0;  // so that the size of a gradient matters
  config.optimization.schedule = {"constant", 1.0, 0, "hold"};
  config.steps = 1;
  auto moved = [&](double clip, const std::string& name) {
    config.optimization.clip_norm = clip;
    const Attempt attempt = Train(config, name, CopyWork());
    const auto initial = MakeModel({"transformer", config.model.shape, config.model.options, 0.0}, config.seed);
    double sum = 0;
    for (const auto& item : initial->named_parameters())
      sum += (attempt.weights.at(item.key()) - item.value()).square().sum().item<double>();
    return std::sqrt(sum);
  };
  const double free = moved(0, "free"), clipped = moved(1e-3, "clipped");
  EXPECT_NEAR(Series("free", "train/grad_norm").at(1), Series("clipped", "train/grad_norm").at(1), 1e-6)
      << "the norm before clipping is reported";
  EXPECT_LT(clipped, 2e-3);
  EXPECT_GT(free, 0.1);
}

TEST_F(TrainingLoopTest, AStoppedRunGoesOnBitEqual) {
  for (const double dropout : {0.0, 0.3}) {
    for (const char* optimizer : {"adafactor", "adamw"}) {
      const std::string suffix = optimizer + std::to_string(dropout);
      TrainingConfig config = SmallConfig();
      config.dropout = dropout;
      config.optimization.optimizer.name = optimizer;
      config.evaluate_every_steps = 7;
      Execution execution;
      execution.log_every = 4;
      const Attempt straight = Train(config, "straight" + suffix, CopyWork(), execution);
      const std::string name = "stopped" + suffix;
      const Attempt first = Train(config, name, StoppingWork(13), execution);
      ASSERT_EQ(first.ending.code, ExitCode::kStopped);
      EXPECT_EQ(Events(name).end()[-2]["event"], "checkpoint");
      SetStopRequested(false);
      const Attempt second = Train(config, name, CopyWork(), execution);
      ASSERT_EQ(second.ending.code, ExitCode::kDone);
      EXPECT_GT(second.summary.resumed_step, 0);
      ExpectEqualWeights(straight, second);
      for (const char* series : {"train/loss", "valid/loss", "train/grad_norm"})
        EXPECT_EQ(Series(name, series), Series("straight" + suffix, series)) << series;
      EXPECT_EQ(second.summary.target_tokens, straight.summary.target_tokens);
    }
  }
}

TrainingConfig PerformerConfig(int64_t redraw_steps) {
  TrainingConfig config = SmallConfig();
  config.model.architecture = "performer";
  config.model.options = Json{{"kernel", "softmax"}, {"redraw_steps", redraw_steps}};
  return config;
}

const char* const kRandomFeatures = "decoder.block.0.layer.0.random_features.rows";

// What is random in a model and not trained: redrawn every five steps it is that of the step, whether the run was
// stopped before or not; never redrawn it stays as it was made.
TEST_F(TrainingLoopTest, AStoppedRunGoesOnWithTheSameRandomFeatures) {
  for (const int64_t redraw_steps : {0, 5}) {
    const TrainingConfig config = PerformerConfig(redraw_steps);
    const std::string suffix = std::to_string(redraw_steps);
    const Attempt straight = Train(config, "straight" + suffix, CopyWork());
    ASSERT_EQ(straight.ending.code, ExitCode::kDone) << straight.ending.reason;
    Train(config, "stopped" + suffix, StoppingWork(13));
    SetStopRequested(false);
    const Attempt resumed = Train(config, "stopped" + suffix, CopyWork());
    EXPECT_GT(resumed.summary.resumed_step, 0);
    ExpectEqualWeights(straight, resumed);
    const auto model = MakeModel({"performer", config.model.shape, config.model.options, 0.0}, config.seed);
    EXPECT_EQ(at::equal(model->named_buffers()[kRandomFeatures], straight.weights.at(kRandomFeatures)),
              redraw_steps == 0);
    model->BeginStep(26);  // the last step of thirty that draws
    EXPECT_TRUE(at::equal(model->named_buffers()[kRandomFeatures], straight.weights.at(kRandomFeatures)));
  }
}

// As a model is exported and read back for fine-tuning; in bf16 too, where buffers stay float32.
TEST_F(TrainingLoopTest, RandomFeaturesTravelWithTheWeights) {
  const TrainingConfig config = PerformerConfig(0);
  const auto make = [&](uint64_t seed) {
    return MakeModel({"performer", config.model.shape, config.model.options, 0.0}, seed);
  };
  for (const bool bf16 : {false, true}) {
    const auto type = bf16 ? at::kBFloat16 : at::kFloat;
    ModelState from(make(1), at::kCPU, type), into(make(2), at::kCPU, type);
    const at::Tensor inputs = CopyBatch(1).inputs_bs;
    const auto logits = [&](ModelState& state) {
      at::NoGradGuard no_grad;
      return state.model().Decode(state.model().Encode(inputs), inputs, inputs);
    };
    ASSERT_TRUE(WriteSafetensors(folder_ / "model.safetensors", {from.Weights(), {}}).ok());
    TensorFile file = *ReadSafetensors(folder_ / "model.safetensors");
    EXPECT_EQ(file.tensors.at(kRandomFeatures).scalar_type(), at::kFloat);
    ASSERT_TRUE(into.LoadWeights(file.tensors).ok());
    EXPECT_TRUE(at::equal(logits(from), logits(into))) << bf16;
    file.tensors.erase(kRandomFeatures);
    const auto refused = into.LoadWeights(file.tensors);
    ASSERT_FALSE(refused.ok());
    EXPECT_THAT(refused.error().message, HasSubstr(kRandomFeatures));
  }
}

TEST_F(TrainingLoopTest, ADamagedCheckpointCostsStepsButNotTheResult) {
  const TrainingConfig config = SmallConfig();
  const Attempt straight = Train(config, "straight", CopyWork());
  Execution often;
  often.checkpoint_interval_s = 0;  // one after every step
  Train(config, "damaged", StoppingWork(20), often);
  SetStopRequested(false);
  std::vector<std::filesystem::path> folders;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "damaged/checkpoint"))
    folders.push_back(entry);
  ASSERT_EQ(folders.size(), 2u) << "the newest two are kept";
  std::sort(folders.begin(), folders.end(), [](const auto& a, const auto& b) {
    return std::stoi(a.filename().string().substr(5)) < std::stoi(b.filename().string().substr(5));
  });
  std::filesystem::resize_file(folders[1] / "tensors.safetensors", 100);
  const Attempt resumed = Train(config, "damaged", CopyWork());
  EXPECT_THAT(log_, HasSubstr("checkpoint skipped"));
  EXPECT_EQ(resumed.summary.resumed_step, std::stoi(folders[0].filename().string().substr(5)));
  ExpectEqualWeights(straight, resumed);
}

// Written while the next step computes, and draws its random features: a checkpoint holds what its own step left.
TEST_F(TrainingLoopTest, ACheckpointOfEveryStepHoldsThatStep) {
  for (const char* optimizer : {"adafactor", "adamw"}) {
    TrainingConfig config = PerformerConfig(1);
    config.dropout = 0.1;
    config.optimization.optimizer.name = optimizer;
    const std::string name = std::string("often-") + optimizer;
    const Attempt straight = Train(config, std::string("straight-") + optimizer, CopyWork());
    Execution often;
    often.checkpoint_interval_s = 0;
    ExpectEqualWeights(straight, Train(config, name, CopyWork(), often));
    std::vector<int64_t> told;
    for (const Json& event : Events(name))
      if (event["event"] == "checkpoint") told.push_back(event["step"]);
    std::vector<int64_t> every(static_cast<size_t>(config.steps));
    std::iota(every.begin(), every.end(), 1);
    EXPECT_EQ(told, every);
    ASSERT_GT(std::filesystem::remove_all(folder_ / name / "checkpoint/step-30"), 0u);
    const Attempt resumed = Train(config, name, CopyWork());
    EXPECT_EQ(resumed.summary.resumed_step, config.steps - 1);
    ExpectEqualWeights(straight, resumed);
  }
}

TEST_F(TrainingLoopTest, ALossThatIsNotFiniteEndsTheRun) {
  TrainingConfig config = SmallConfig();
  config.optimization.schedule = {"constant", 1e30, 0, "hold"};
  const Attempt attempt = Train(config, "run", CopyWork());
  EXPECT_EQ(attempt.ending.code, ExitCode::kDiverged);
  EXPECT_THAT(attempt.ending.reason, HasSubstr("not finite"));
}

TEST_F(TrainingLoopTest, ASpikeEndsTheRun) {
  TrainingConfig config = SmallConfig();
  config.optimization.schedule = {"constant", 3.0, 0, "hold"};  // far too high
  config.divergence = {0.5, 5};
  config.steps = 500;
  const Attempt attempt = Train(config, "run", CopyWork());
  EXPECT_EQ(attempt.ending.code, ExitCode::kDiverged);
  EXPECT_THAT(attempt.ending.reason, HasSubstr("spike"));
}

TEST_F(TrainingLoopTest, KeepsTheBestWeightsWhenAsked) {
  TrainingConfig config = SmallConfig();
  config.steps = 20;
  config.evaluate_every_steps = 5;
  LoopWork work = CopyWork();
  std::vector<std::map<std::string, at::Tensor>> seen;
  auto scores = std::make_shared<std::vector<double>>(std::vector<double>{0.1, 0.9, 0.9, 0.2});
  work.select_best = true;
  work.evaluate = [&seen, scores](ModelState& state, bool) -> std::optional<Evaluation> {
    std::map<std::string, at::Tensor> copy;
    for (const auto& [name, tensor] : state.Weights()) copy[name] = tensor.clone();
    seen.push_back(copy);
    const double score = (*scores)[seen.size() - 1];
    return Evaluation{score, {{"valid/score", score}}, Json{{"n", seen.size()}}};
  };
  const Attempt attempt = Train(config, "run", work);
  ASSERT_EQ(attempt.ending.code, ExitCode::kDone);
  EXPECT_EQ(attempt.summary.selected_step, 10);
  EXPECT_EQ(attempt.summary.final.detail["n"], 2);
  for (const auto& [name, tensor] : attempt.weights) EXPECT_TRUE(at::equal(tensor, seen[1].at(name)));
}

TEST_F(TrainingLoopTest, TheBestWeightsSurviveAStop) {
  TrainingConfig config = SmallConfig();
  config.steps = 24;
  config.evaluate_every_steps = 4;
  auto work = [](int64_t stop_at) {
    LoopWork loop_work = stop_at ? StoppingWork(stop_at) : CopyWork();
    loop_work.select_best = true;
    loop_work.evaluate = [](ModelState& state, bool) -> std::optional<Evaluation> {
      // Any function of the weights that goes up and down.
      const double score = std::sin(1e4 * state.Weights().begin()->second.sum().item<double>());
      return Evaluation{score, {{"valid/score", score}}, {}};
    };
    return loop_work;
  };
  const Attempt straight = Train(config, "straight", work(0));
  Train(config, "stopped", work(21));
  SetStopRequested(false);
  const Attempt resumed = Train(config, "stopped", work(0));
  EXPECT_GT(resumed.summary.resumed_step, 0);
  EXPECT_EQ(resumed.summary.selected_step, straight.summary.selected_step);
  ExpectEqualWeights(straight, resumed);
}

TEST_F(TrainingLoopTest, AStopDuringTheLastEvaluationKeepsTheTraining) {
  LoopWork work = CopyWork();
  work.evaluate = [](ModelState&, bool) -> std::optional<Evaluation> { return std::nullopt; };
  const Attempt first = Train(SmallConfig(), "run", work);
  EXPECT_EQ(first.ending.code, ExitCode::kStopped);
  const Attempt second = Train(SmallConfig(), "run", CopyWork());
  EXPECT_EQ(second.ending.code, ExitCode::kDone);
  EXPECT_EQ(second.summary.resumed_step, SmallConfig().steps);
}

// The second micro-batch of a step may be the one that does not fit: what the first one left must be forgotten.
TEST_F(TrainingLoopTest, AStepThatMemoryDoesNotHoldIsTakenAgainWithHalf) {
  const TrainingConfig config = SmallConfig();
  most_rows_ = 1'000;
  Execution execution;
  execution.micro_batch = 2;
  const Attempt small = Train(config, "small", CopyWork(), execution);
  most_rows_ = 3;
  execution.micro_batch = kRows;
  const Attempt halved = Train(config, "halved", CopyWork(), execution);
  ASSERT_EQ(halved.ending.code, ExitCode::kDone) << halved.ending.reason;
  EXPECT_EQ(halved.summary.micro_batch, 2);
  for (const auto& [name, tensor] : small.weights) EXPECT_TRUE(at::equal(tensor, halved.weights.at(name))) << name;
  const auto told_out_of_memory = [&](const std::string& name) {
    std::vector<Json> events = Events(name);
    std::erase_if(events, [](const Json& event) { return event["event"] != "out_of_memory"; });
    return events;
  };
  EXPECT_TRUE(told_out_of_memory("halved").empty());
  most_rows_ = -1;
  EXPECT_THROW(Train(config, "none", CopyWork(), execution), c10::OutOfMemoryError);
  const std::vector<Json> told = told_out_of_memory("none");
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0]["micro_batch"], 1);
}

TEST_F(TrainingLoopTest, WhereOneRowDoesNotFitActivationsAreCheckpointed) {
  const TrainingConfig config = SmallConfig();
  Execution execution;
  execution.micro_batch = 1;
  most_rows_ = 1'000;
  const Attempt whole = Train(config, "whole", CopyWork(), execution);
  most_rows_ = 0;  // one with activation checkpointing
  execution.micro_batch = 4;
  ExpectEqualWeights(whole, Train(config, "checkpointed", CopyWork(), execution));
  execution.activation_checkpointing = false;
  EXPECT_THROW(Train(config, "forbidden", CopyWork(), execution), c10::OutOfMemoryError);
}

TEST_F(TrainingLoopTest, Bfloat16KeepsFloat32Masters) {
  TrainingConfig config = SmallConfig();
  config.steps = 150;
  Execution execution;
  execution.micro_batch = 4;
  const Attempt attempt = Train(config, "run", CopyWork(), execution, /*bf16=*/true);
  ASSERT_EQ(attempt.ending.code, ExitCode::kDone) << attempt.ending.reason;
  bool finer_than_bf16 = false;
  for (const auto& [name, tensor] : attempt.weights) {
    EXPECT_EQ(tensor.scalar_type(), at::kFloat) << name;
    finer_than_bf16 |= !at::equal(tensor, tensor.to(at::kBFloat16).to(at::kFloat));
  }
  EXPECT_TRUE(finer_than_bf16);
  const auto losses = Series("run", "train/loss");
  EXPECT_LT(losses.rbegin()->second, losses.begin()->second - 0.8);
}

TEST_F(TrainingLoopTest, GreedyDecodingFollowsTheModelTokenByToken) {
  const TrainingConfig config = SmallConfig();
  auto model = MakeModel({"transformer", config.model.shape, config.model.options, 0.0}, 4);
  model->eval();
  at::NoGradGuard no_grad;
  const at::Tensor inputs = CopyBatch(3).inputs_bs;
  const auto decoded = DecodeGreedily(*model, inputs, 5);
  ASSERT_EQ(decoded.size(), static_cast<size_t>(kRows));
  for (int64_t row = 0; row < kRows; ++row) {
    const at::Tensor one = inputs.narrow(0, row, 1);
    std::vector<int64_t> expected, prefix{0};
    while (expected.size() < 5) {
      const at::Tensor decoder_inputs = at::tensor(prefix, at::kLong).unsqueeze(0);
      const int64_t next = model->Decode(model->Encode(one), one, decoder_inputs)[0][-1].argmax().item<int64_t>();
      if (next == 1) break;
      expected.push_back(next);
      prefix.push_back(next);
    }
    EXPECT_EQ(decoded[static_cast<size_t>(row)], expected) << row;
  }
}

}  // namespace
}  // namespace allometry::trainer
