// A step as a graph holds it: emulated on a CPU's tensors, where a "graph" does the recorded work again, and by CUDA
// graphs on a GPU, where there is one.
#include "worker/trainer/engine/training_step.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/record_function.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <optional>

#include "tests/unit/distributed/ranks.h"
#include "tests/unit/engine/kept_work.h"
#include "tests/unit/kernels/tensor_case.h"
#include "tests/unit/models/forwarding_model.h"
#include "tests/unit/models/model_cases.h"
#include "worker/trainer/distributed/nccl_collective.h"
#include "worker/trainer/engine/device.h"
#include "worker/trainer/engine/rank_training.h"
#include "worker/trainer/engine/side_stream.h"

namespace allometry::trainer {
namespace {

using ::testing::IsEmpty;

constexpr int kSteps = 4;

// Every architecture with its defaults.
std::vector<ModelCase> Architectures() {
  std::vector<ModelCase> cases = ModelCases();
  std::erase_if(cases, [](const ModelCase& model_case) { return !model_case.given.is_null(); });
  return cases;
}

struct TrainedSteps {
  std::vector<double> losses, norms;
  std::map<std::string, at::Tensor> weights, optimizer;
  std::vector<at::Tensor> copies;
  int64_t launches = 0;
};

class CannotRecord : public StepGraph {
 public:
  void Capture(const std::function<void()>&) override { TORCH_CHECK(false, "this graph cannot be recorded"); }
  void Launch() override {}
};

// How two ranks share the work.
struct Sharing {
  const char *name = "", *optimizer = "";
  bool states = false;   // each rank has the optimiser's state, and the gradients, of a half of the tensors
  bool experts = false;  // each has a half of the experts
};

class DeviceTrainingStep : public TensorKernelTest {
 protected:
  void TearDown() override { at::globalContext().setDeterministicAlgorithms(false, /*warn_only=*/false); }

  TrainingConfig ConfigFor(const ModelCase& model_case, const std::string& optimizer) const {
    TrainingConfig config;
    const ModelSpec spec = model_case.Spec(SmallShape(), 0.1);
    config.model = {spec.architecture, spec.shape, spec.options};
    if (spec.options.contains("redraw_steps")) config.model.options["redraw_steps"] = 2;
    config.dropout = spec.dropout;
    config.optimization.optimizer.name = optimizer;
    config.optimization.optimizer.weight_decay = 0.1;
    config.optimization.schedule = {"inverse_sqrt", 0.02, 3, "linear"};
    config.optimization.clip_norm = 0.5;
    config.batch_sequences = 4;
    config.steps = kSteps;
    config.seed = 7;
    return config;
  }

  // Another number of targets in every step.
  DeviceBatch BatchOf(int64_t step) const {
    const auto generator = at::detail::createCPUGenerator(static_cast<uint64_t>(step));
    const at::Tensor inputs = at::randint(3, 40, {4, 10}, generator, at::kLong),
                     targets = inputs.slice(1, 0, 6).clone();
    targets[step % 4].slice(0, 2).fill_(0);
    targets[0].slice(0, 1 + step).fill_(0);
    const int64_t tokens = targets.ne(0).sum().item<int64_t>();
    return {inputs.to(device_), targets.to(device_), {0, 4}, 4, tokens};
  }

  StepGraphMaker Graphs() const {
    if (device_.is_cpu()) return [] { return std::make_unique<KeptWork>(); };
    std::string why_not;
    StepGraphMaker graphs = CudaGraphs(&why_not);
    EXPECT_TRUE(graphs) << why_not;
    return graphs;
  }

  // f(step) before each.
  TrainedSteps Train(const TrainingConfig& config, at::ScalarType type, const StepGraphMaker& graphs,
                     const std::function<void(int64_t)>& before = {}) {
    const SideStream stream(device_, SideStream::Priority::kNormal);
    const OnStream on_stream(stream);
    ModelSpec spec{config.model.architecture, config.model.shape, config.model.options, config.dropout};
    ModelState state(MakeModel(spec, config.seed), device_, type);
    const auto optimizer = *MakeOptimizer(config.optimization.optimizer, state.masters());
    TrainingStep step({.config = config,
                       .device = device_,
                       .state = state,
                       .optimizer = *optimizer,
                       .micro_batch = 3,
                       .graphs = graphs});
    state.model().train();
    TrainedSteps trained;
    for (int64_t n = 1; n <= config.steps; ++n) {
      const DeviceBatch batch = BatchOf(n);
      if (before) before(n);
      const StepResult result = step.Take(n, batch, /*wants_norm=*/true, {[] {}, [] {}});
      if (before) before(0);
      trained.losses.push_back(result.loss.item<double>());
      trained.norms.push_back(result.gradient_norm.item<double>());
    }
    trained.launches = step.graph_launches();
    for (const auto& [name, tensor] : state.Weights()) trained.weights[name] = tensor.cpu().clone();
    for (const auto& [name, tensor] : optimizer->State()) trained.optimizer[name] = tensor.cpu().clone();
    for (const at::Tensor& copy : state.Copies()) trained.copies.push_back(copy.defined() ? copy.cpu().clone() : copy);
    return trained;
  }

  static void ExpectEqual(const std::map<std::string, at::Tensor>& a, const std::map<std::string, at::Tensor>& b,
                          const std::string& what) {
    ASSERT_EQ(a.size(), b.size());
    for (const auto& [name, tensor] : a) EXPECT_TRUE(at::equal(tensor, b.at(name))) << what << " " << name;
  }
};
INSTANTIATE_TEST_SUITE_P(Kernels, DeviceTrainingStep, ::testing::Bool(), TensorKernelName);

TEST_P(DeviceTrainingStep, GraphsAreBitForBitTheOperations) {
  if (!device_.is_cpu()) UseDeterministicOperations();  // LibTorch's own add up in any order unless they are asked to
  bool adamw = false;
  for (const ModelCase& model_case : Architectures()) {
    const std::string optimizer = (adamw = !adamw) ? "adamw" : "adafactor", name = model_case.Name() + " " + optimizer;
    const TrainingConfig config = ConfigFor(model_case, optimizer);
    ByKernels([&] {
      const TrainedSteps plain = Train(config, at::kBFloat16, nullptr), graphs = Train(config, at::kBFloat16, Graphs());
      EXPECT_EQ(plain.launches, 0);
      EXPECT_EQ(graphs.launches, kSteps - 1) << name;
      EXPECT_EQ(plain.losses, graphs.losses) << name;
      EXPECT_EQ(plain.norms, graphs.norms) << name;
      ExpectEqual(plain.weights, graphs.weights, name);
      ExpectEqual(plain.optimizer, graphs.optimizer, name);
      return 0;
    });
  }
}

// Records by doing the work.
class Does : public StepGraph {
 public:
  void Capture(const std::function<void()>& work) override { work(); }
  void Launch() override {}
};

// Fails at one of its calls.
class FailsAt : public ForwardingModel {
 public:
  FailsAt(const std::shared_ptr<Model>& inner, int call) : ForwardingModel(inner), left_(call) {}
  Loss ComputeLoss(const Batch& batch) override {
    TORCH_CHECK(--left_ != 0, "this call fails");
    return ForwardingModel::ComputeLoss(batch);
  }

 private:
  int left_;
};

// A step that was recorded half is taken anew, and what the half left behind is not added to it.
TEST_P(DeviceTrainingStep, AFailedRecordingLeavesNothingBehind) {
  const TrainingConfig config = ConfigFor({"transformer", nullptr}, "adamw");
  const ModelSpec spec{config.model.architecture, config.model.shape, config.model.options, config.dropout};
  const auto train = [&](int call, const StepGraphMaker& graphs) {
    const SideStream stream(device_, SideStream::Priority::kNormal);
    const OnStream on_stream(stream);
    ModelState state(std::make_shared<FailsAt>(MakeModel(spec, config.seed), call), device_, at::kFloat);
    const auto optimizer = *MakeOptimizer(config.optimization.optimizer, state.masters());
    TrainingStep step({.config = config,
                       .device = device_,
                       .state = state,
                       .optimizer = *optimizer,
                       .micro_batch = 3,
                       .graphs = graphs});
    for (int64_t n = 1; n <= 3; ++n) step.Take(n, BatchOf(n), /*wants_norm=*/true, {[] {}, [] {}});
    EXPECT_EQ(step.graph_launches(), 0);
    std::map<std::string, at::Tensor> weights;
    for (const auto& [name, tensor] : state.Weights()) weights[name] = tensor.cpu().clone();
    return weights;
  };
  ByKernels([&] {
    StepGraphMaker graphs = Graphs();
    if (device_.is_cpu()) graphs = [] { return std::make_unique<Does>(); };
    ExpectEqual(train(/*call=*/0, nullptr), train(/*call=*/4, graphs), "the second half of the recorded step failed");
    return 0;
  });
}

// Steps by kernels are those of a CPU: clipping, the rate of each step, dropout's draws, the mean over the targets.
TEST_P(DeviceTrainingStep, IsTheStepOfACpu) {
  for (const std::string optimizer : {"adafactor", "adamw"}) {
    const TrainingConfig config = ConfigFor({"transformer", nullptr}, optimizer);
    const TrainedSteps got = ByKernels([&] { return Train(config, at::kFloat, Graphs()); });
    const at::Device device = std::exchange(device_, at::Device(at::kCPU));
    const TrainedSteps want = Train(config, at::kFloat, nullptr);
    device_ = device;
    for (size_t i = 0; i < want.losses.size(); ++i) {
      EXPECT_NEAR(got.losses[i], want.losses[i], 1e-4) << optimizer << " step " << i + 1;
      EXPECT_NEAR(got.norms[i], want.norms[i], 1e-3 * want.norms[i]) << optimizer << " step " << i + 1;
      EXPECT_GT(want.norms[i], 0.5) << "the steps are clipped";
    }
    for (const auto& [name, tensor] : want.weights)
      EXPECT_LT((got.weights.at(name) - tensor).abs().max().item<double>(), 1e-3) << optimizer << " " << name;
  }
}

// The model computes with the masters as the optimiser's kernel rounds them.
TEST_P(DeviceTrainingStep, WritesTheCopies) {
  const TrainingConfig config = ConfigFor({"switch", nullptr, 4}, "adafactor");
  const TrainedSteps trained = ByKernels([&] { return Train(config, at::kBFloat16, Graphs()); });
  ModelSpec spec{config.model.architecture, config.model.shape, config.model.options, config.dropout};
  const ModelState state(MakeModel(spec, config.seed), at::kCPU, at::kBFloat16);
  size_t rounded = 0;
  for (size_t i = 0; i < state.masters().size(); ++i) {
    if (!trained.copies[i].defined()) continue;
    ++rounded;
    const std::string& name = state.masters()[i].name;
    EXPECT_TRUE(at::equal(trained.copies[i], trained.weights.at(name).to(at::kBFloat16))) << name;
  }
  EXPECT_GT(rounded, 10u);
  EXPECT_LT(rounded, state.masters().size()) << "the router stays float32";
}

// What ranks exchange is a part of the graph, and their steps, clipped by the norm of all gradients, are those of one.
TEST_P(DeviceTrainingStep, GraphsOfRanksAreBitForBitTheOperations) {
  if (!device_.is_cpu()) GTEST_SKIP() << "one GPU has one rank";
  const auto train = [&](const TrainingConfig& config, const Sharing& sharing, at::ScalarType type,
                         const StepGraphMaker& graphs) {
    TrainedSteps trained;
    InGroup(2, [&](RankGroup& group) {
      const kernels::ForceKernels force(*table_);
      ModelSpec spec{config.model.architecture, config.model.shape, config.model.options, config.dropout};
      const std::shared_ptr<Model> model = MakeModel(spec, config.seed);
      std::set<std::string> divided;
      if (sharing.experts) divided = DivideExpertsAmong(group, *model, config.batch_sequences);
      ModelState state(model, device_, type);
      if (sharing.experts) state.SetDivided(&group.tensors(), divided);
      const RankTraining training = *TrainOnRanks(config.optimization.optimizer, sharing.states, state, group);
      ASSERT_TRUE(training.optimizer->UsesKernels());
      TrainingStep step({.config = config,
                         .device = device_,
                         .state = state,
                         .optimizer = *training.optimizer,
                         .group = &group,
                         .sharded = sharing.states,
                         .micro_batch = 1,
                         .graphs = graphs});
      state.model().train();
      for (int64_t n = 1; n <= kSteps; ++n) {
        DeviceBatch batch = BatchOf(n);
        batch.own = group.RowsOf(batch.rows);
        batch.inputs_bs = batch.inputs_bs.narrow(0, batch.own.first, batch.own.count);
        batch.targets_bt = batch.targets_bt.narrow(0, batch.own.first, batch.own.count);
        const StepResult result = step.Take(n, batch, /*wants_norm=*/true, {[] {}, [] {}});
        const at::Tensor loss = result.loss.clone();
        group.tensors().AllReduce(loss);
        if (!group.is_first()) continue;
        trained.losses.push_back(loss.item<double>());
        trained.norms.push_back(result.gradient_norm.item<double>());
      }
      const auto launches = static_cast<int64_t>(group.Sum({static_cast<double>(step.graph_launches())})[0]);
      if (group.is_first()) trained.launches = launches;
      const auto weights = state.Weights(), optimizer = training.optimizer->State();
      for (size_t i = 0; i < state.masters().size(); ++i) {
        const at::Tensor copy = state.Copies()[i], master = state.masters()[i].value;
        EXPECT_TRUE(!copy.defined() || at::equal(copy, master.to(at::kBFloat16))) << "rank " << group.rank();
      }
      if (!group.is_first()) return;
      for (const auto& [name, tensor] : weights) trained.weights[name] = tensor.clone();
      for (const auto& [name, tensor] : optimizer) trained.optimizer[name] = tensor.clone();
    });
    return trained;
  };
  // One of two ranks cannot record: both go on without.
  std::atomic<int> made{0};
  const StepGraphMaker every_other = [&]() -> std::unique_ptr<StepGraph> {
    if (++made % 2) return std::make_unique<KeptWork>();
    return std::make_unique<CannotRecord>();
  };
  const TrainingConfig whole = ConfigFor({"glu", nullptr}, "adamw");
  const TrainedSteps without = train(whole, {}, at::kBFloat16, every_other);
  EXPECT_EQ(made, 2);
  EXPECT_EQ(without.launches, 0);
  ExpectEqual(train(whole, {}, at::kBFloat16, nullptr).weights, without.weights, "one rank cannot record");

  for (const Sharing& sharing :
       std::vector<Sharing>{{.name = "whole", .optimizer = "adamw"},
                            {.name = "states", .optimizer = "adafactor", .states = true},
                            {.name = "experts", .optimizer = "adafactor", .experts = true},
                            {.name = "both", .optimizer = "adafactor", .states = true, .experts = true}}) {
    const std::string name = sharing.name;
    const TrainingConfig config = ConfigFor({sharing.experts ? "switch" : "glu", nullptr}, sharing.optimizer);
    const TrainedSteps plain = train(config, sharing, at::kBFloat16, nullptr);
    const TrainedSteps graphs = train(config, sharing, at::kBFloat16, Graphs());
    EXPECT_EQ(plain.launches, 0) << name;
    EXPECT_EQ(graphs.launches, 2 * (kSteps - 1)) << name << ": of both ranks";
    EXPECT_EQ(plain.losses, graphs.losses) << name;
    EXPECT_EQ(plain.norms, graphs.norms) << name;
    ExpectEqual(plain.weights, graphs.weights, name);
    ExpectEqual(plain.optimizer, graphs.optimizer, name);

    const TrainedSteps ranks = train(config, sharing, at::kFloat, Graphs());
    const TrainedSteps one = ByKernels([&] { return Train(config, at::kFloat, nullptr); });
    for (size_t i = 0; i < one.losses.size(); ++i) {
      EXPECT_NEAR(ranks.losses[i], one.losses[i], 1e-4) << name << " step " << i + 1;
      EXPECT_NEAR(ranks.norms[i], one.norms[i], 1e-3 * one.norms[i]) << name << " step " << i + 1;
      EXPECT_GT(one.norms[i], config.optimization.clip_norm) << "the steps are clipped";
    }
    ASSERT_EQ(ranks.weights.size(), one.weights.size());
    for (const auto& [weight, tensor] : one.weights)
      EXPECT_LT((ranks.weights.at(weight) - tensor).abs().max().item<double>(), 1e-3) << name << " " << weight;
  }
}

TEST_P(DeviceTrainingStep, AllRanksHaveKernelsOrNone) {
  if (!device_.is_cpu()) GTEST_SKIP() << "one GPU has one rank";
  for (const int with : {0, 1, 2})
    InGroup(2, [&](RankGroup& group) {
      std::optional<kernels::ForceKernels> force;
      if (group.rank() < with) force.emplace(*table_);
      EXPECT_EQ(AllRanksHaveKernels(group, at::zeros({1})), with == 2) << group.rank();
    });
}

// NCCL itself, with one rank: every call, then a sum within a graph, after the first calls have set it up.
TEST_P(DeviceTrainingStep, NcclOfOneRankIsRecorded) {
  if (device_.is_cpu()) GTEST_SKIP() << "NCCL is for GPUs";
  const SideStream stream(device_, SideStream::Priority::kNormal);
  const OnStream on_stream(stream);
  NcclCollective nccl(NewNcclId(), 0, 1, device_, nullptr, std::chrono::minutes(10));
  const at::Tensor x = at::arange(6, at::TensorOptions(device_).dtype(at::kFloat)), want = x.clone();
  nccl.AllReduce(x);
  nccl.ReduceScatter(x, {0, 6});
  nccl.AllGather(x, {0, 6});
  nccl.Broadcast(x, 0);
  EXPECT_TRUE(at::equal(nccl.AllToAll(x.view({1, 6})).view({6}), want));
  EXPECT_TRUE(at::equal(x, want));

  const auto graph = Graphs()();
  nccl.BeginCapture();
  graph->Capture([&] {
    x.add_(1);
    nccl.AllReduce(x);
  });
  nccl.EndCapture();
  EXPECT_TRUE(at::equal(x, want)) << "recorded, not done";
  for (int launch = 1; launch <= 3; ++launch) {
    graph->Launch();
    nccl.Launched();
    EXPECT_TRUE(at::equal(x, want + launch));
  }
}

// Whatever makes the host wait for the device, or takes what it computed.
std::vector<std::string>* waits = nullptr;
std::unique_ptr<at::ObserverContext> NoteWaits(const at::RecordFunction& f) {
  static const std::set<std::string> kinds = {
      "aten::_local_scalar_dense", "aten::item",  "aten::is_nonzero", "aten::nonzero",
      "aten::masked_select",       "aten::equal", "aten::_unique2",   "aten::bincount",
      "aten::pin_memory"};
  if (waits && kinds.contains(f.name())) waits->push_back(f.name());
  return nullptr;
}

TEST_P(DeviceTrainingStep, NothingIsReadOnTheHost) {
  const auto handle = at::addGlobalCallback(at::RecordFunctionCallback(&NoteWaits).scopes({at::RecordScope::FUNCTION}));
  for (const ModelCase& model_case : Architectures())
    for (const at::ScalarType type : {at::kBFloat16, at::kFloat}) {
      std::vector<std::string> found;
      TrainingConfig config = ConfigFor(model_case, "adafactor");
      config.steps = 2;
      config.model.options.erase("redraw_steps");  // it is drawn again on the host, before the step
      if (model_case.Spec(SmallShape()).options.contains("redraw_steps")) config.model.options["redraw_steps"] = 0;
      ByKernels(
          [&] { return Train(config, type, nullptr, [&](int64_t step) { waits = step > 1 ? &found : nullptr; }); });
      EXPECT_THAT(found, IsEmpty()) << model_case.Name() << " " << type;
    }
  at::removeCallback(handle);
}

}  // namespace
}  // namespace allometry::trainer
