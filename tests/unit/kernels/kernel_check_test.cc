#include "worker/trainer/engine/kernel_check.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <utility>

#include "tests/unit/engine/kept_work.h"
#include "tests/unit/kernels/tensor_case.h"

namespace allometry::trainer {
namespace {

using kernels::AttentionBackwardArgs;
using kernels::AttentionForwardArgs;
using kernels::DataType;
using kernels::KernelTable;
using kernels::Stream;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

KernelCheckCase Transformer(at::ScalarType type, double dropout = 0) {
  return {.architecture = "transformer", .shape = {1, 1, 8, 16, 1, 8, 40}, .type = type, .dropout = dropout};
}
// Two tiles of keys, and distances of all buckets but the last ones.
KernelCheckCase Long(double dropout) {
  KernelCheckCase c = Transformer(at::kBFloat16, dropout);
  c.lengths = {100, 70};
  return c;
}
KernelCheckCase LargeVocabulary() {
  KernelCheckCase c = Transformer(at::kBFloat16);
  c.shape.vocabulary = 33024;
  return c;
}

KernelCheckOptions OptionsFor(const KernelTable& table, const std::vector<KernelCheckCase>& cases) {
  KernelCheckOptions options;
  options.cases = cases;
  options.plainly = [](const std::function<void()>& f) { f(); };
  options.by_kernels = [&table](const std::function<void()>& f) {
    const kernels::ForceKernels force(table);
    f();
  };
  options.graphs = [] { return std::make_unique<KeptWork>(); };
  return options;
}

TEST(KernelCheckTest, RightKernelsPass) {
  const KernelTable table = kernels::MakeKernelTable();
  KernelCheckCase adafactor = Transformer(at::kBFloat16);
  adafactor.optimizer = "adafactor";
  const std::vector<KernelCheckCase> cases = {
      Transformer(at::kFloat),
      adafactor,
      {.architecture = "switch", .shape = {4, 4, 8, 16, 1, 8, 40}, .dropout = 0.1},
      Long(0),
      Long(0.5),
      LargeVocabulary()};
  const KernelCheck check = CheckKernels(at::kCPU, OptionsFor(table, cases));
  EXPECT_TRUE(check.kernels) << check.why_not;
  EXPECT_TRUE(check.graphs) << check.why_not;
  EXPECT_EQ(check.why_not, "");
}

// Whose recurrence makes the most of rounding.
TEST(KernelCheckTest, TheMostSensitiveOfAGpusCasesPasses) {
  const KernelTable table = kernels::MakeKernelTable();
  std::vector<KernelCheckCase> cases = KernelCheckCases();
  std::erase_if(cases, [](const KernelCheckCase& c) { return c.architecture != "universal" || c.type != at::kFloat; });
  ASSERT_EQ(cases.size(), 1u);
  KernelCheckOptions options = OptionsFor(table, cases);
  options.graphs = nullptr;
  EXPECT_EQ(CheckKernels(at::kCPU, options).why_not, "");
}

// What docs/kernels.md says of a GPU's cases; that every architecture takes them.
TEST(KernelCheckTest, AGpuIsAskedForWhatRunsNeed) {
  std::set<int64_t> depths, dropped_depths;
  bool long_logits = false;
  std::set<std::string> architectures, dropping;
  for (const KernelCheckCase& c : KernelCheckCases()) {
    const arch::Architecture& architecture = **arch::FindArchitecture(c.architecture);
    const auto options = *arch::CompleteOptions(architecture, common::Json());
    EXPECT_TRUE(architecture.CheckShape(c.shape, options)) << c.architecture;
    architectures.insert(c.architecture);
    if (c.dropout > 0) dropping.insert(c.architecture);
    long_logits |= c.type == at::kBFloat16 && c.shape.vocabulary > 32768;
    if (c.type == at::kBFloat16 && c.lengths.inputs > 128 && c.lengths.targets > 128)
      (c.dropout > 0 ? dropped_depths : depths).insert(c.shape.d_kv);
  }
  EXPECT_EQ(depths, (std::set<int64_t>{32, 64, 128}));
  EXPECT_EQ(dropped_depths, depths);
  EXPECT_TRUE(long_logits);
  EXPECT_EQ(architectures.size(), arch::Architectures().size());
  EXPECT_EQ(dropping.size(), architectures.size() - 1) << "the Universal Transformer has no dropout";
}

KernelTable right;

void DoublesInputGradients(Stream stream, DataType type, const kernels::NormBackwardArgs& args) {
  right.norm_backward(stream, type, args);
  auto* dx = static_cast<float*>(args.dx);
  if (type == DataType::kFloat32)
    for (int64_t i = 0; i < args.rows * args.d; ++i) dx[i] *= 2;
}

void Decays(Stream stream, DataType type, const kernels::AdamWArgs& args) {
  kernels::AdamWArgs decayed = args;
  decayed.weight_decay = 10;
  right.adamw(stream, type, decayed);
}

void TakesOneTileOfKeys(Stream stream, const AttentionForwardArgs& args) {
  AttentionForwardArgs first = args;
  if (!args.in.shape.causal) first.in.shape.keys = std::min(args.in.shape.keys, 64);
  right.attention_forward(stream, first);
}

// Of distances that the short sequences do not have.
void ForgetsFarBuckets(Stream stream, const AttentionBackwardArgs& args) {
  right.attention_backward(stream, args);
  if (!args.dtable) return;
  for (int bucket = 0; bucket < kernels::kAttentionBuckets; ++bucket)
    if (args.in.shape.causal ? bucket >= 22 : bucket % 16 >= 12)
      std::fill_n(args.dtable + bucket * args.in.shape.heads, args.in.shape.heads, 0.0f);
}

void DoublesLongRows(Stream stream, DataType type, const kernels::CrossEntropyArgs& args) {
  right.cross_entropy(stream, type, args);
  if (args.v > 32768)
    for (int64_t i = 0; i < args.n; ++i) args.nll[i] *= 2;
}

void ShiftsDraws(Stream stream, DataType type, const kernels::RandomMaskArgs& args) {
  kernels::RandomMaskArgs shifted = args;
  shifted.where.key += 1;
  right.random_mask(stream, type, shifted);
}

// Attention's draws are those of each micro-batch's first rows.
void DrawsForFirstRows(Stream stream, const AttentionForwardArgs& args) {
  AttentionForwardArgs first = args;
  first.in.dropout.first_example = 0;
  right.attention_forward(stream, first);
}
void DrawsAgainForFirstRows(Stream stream, const AttentionBackwardArgs& args) {
  AttentionBackwardArgs first = args;
  first.in.dropout.first_example = 0;
  right.attention_backward(stream, first);
}

struct Fault {
  KernelCheckCase found_by;
  std::string by, what;
  std::function<void(KernelTable&)> spoil;
};

// Each wrong kernel is noticed by what it makes wrong, and by that case which has it.
TEST(KernelCheckTest, WrongKernelsAreNamedByWhatTheySpoil) {
  right = kernels::MakeKernelTable();
  const KernelCheckCase usual = Transformer(at::kFloat);
  const std::string small = "32 inputs, 16 targets, vocabulary 40", large = "100 inputs, 70 targets, vocabulary 40",
                    bias = "SelfAttention.relative_attention_bias.weight differs by ";
  const std::vector<Fault> faults = {
      {usual, "fp32 (d_kv 8, " + small + ", dropout 0.0)", "loss of step 1 is ",
       [](KernelTable& t) { t.norm_forward = [](Stream, DataType, const kernels::NormForwardArgs&) {}; }},
      {usual, "fp32 (d_kv 8, " + small + ", dropout 0.0)", "gradient norm of step 1 is ",
       [](KernelTable& t) { t.norm_backward = DoublesInputGradients; }},
      {usual, "fp32 (d_kv 8, " + small + ", dropout 0.0)", "the change of ", [](KernelTable& t) { t.adamw = Decays; }},
      {Long(0), "bf16 (d_kv 8, " + large + ", dropout 0.0)", "gradient norm of step 1 is ",
       [](KernelTable& t) { t.attention_forward = TakesOneTileOfKeys; }},
      {Long(0), "bf16 (d_kv 8, " + large + ", dropout 0.0)", bias,
       [](KernelTable& t) { t.attention_backward = ForgetsFarBuckets; }},
      {LargeVocabulary(), "bf16 (d_kv 8, 32 inputs, 16 targets, vocabulary 33024, dropout 0.0)", "loss of step 1 is ",
       [](KernelTable& t) { t.cross_entropy = DoublesLongRows; }},
      {Transformer(at::kFloat, 0.1), "fp32 (d_kv 8, " + small + ", dropout 0.1)", " is ",
       [](KernelTable& t) { t.random_mask = ShiftsDraws; }},
      {Long(0.5), "bf16 (d_kv 8, " + large + ", dropout 0.5)", "in one micro-batch",
       [](KernelTable& t) {
         t.attention_forward = DrawsForFirstRows;
         t.attention_backward = DrawsAgainForFirstRows;
       }},
  };
  for (const auto& [found_by, by, what, spoil] : faults) {
    KernelTable table = right;
    spoil(table);
    std::vector<KernelCheckCase> cases = {found_by};
    // The fault is one that only its own case shows.
    if (by.find(small + ", dropout 0.0") == std::string::npos) cases.insert(cases.begin(), Transformer(found_by.type));
    KernelCheckOptions options = OptionsFor(table, cases);
    options.graphs = nullptr;
    const KernelCheck check = CheckKernels(at::kCPU, options);
    EXPECT_FALSE(check.kernels) << what;
    EXPECT_FALSE(check.graphs) << what;
    EXPECT_THAT(check.why_not, AllOf(StartsWith("transformer in " + by + " by kernels: "), HasSubstr(what)));
  }
}

TEST(KernelCheckTest, WithoutGraphsKernelsMayBeRight) {
  struct LaunchesOnce : KeptWork {
    void Launch() override {
      if (!std::exchange(launched, true)) KeptWork::Launch();
    }
    bool launched = false;
  };
  const KernelTable table = kernels::MakeKernelTable();
  KernelCheckOptions options = OptionsFor(table, {Transformer(at::kFloat), Transformer(at::kBFloat16)});
  options.graphs = [] { return std::make_unique<LaunchesOnce>(); };
  const KernelCheck check = CheckKernels(at::kCPU, options);
  EXPECT_TRUE(check.kernels) << check.why_not;
  EXPECT_FALSE(check.graphs);
  EXPECT_THAT(check.why_not, AllOf(StartsWith("transformer in fp32 ("), HasSubstr(") as a graph: loss of step 3 is "),
                                   HasSubstr(", operation by operation ")));
}

// Attention drops in every launch what it dropped in the first: all else of the step is right.
bool launching = false;
uint64_t recorded_seed = 0;
template <typename Args>
Args AsRecorded(const Args& args) {
  Args recorded = args;
  if (!launching || !args.in.dropout.seed) return recorded;
  if (recorded_seed == 0) recorded_seed = *args.in.dropout.seed;
  recorded.in.dropout.seed = &recorded_seed;
  return recorded;
}

TEST(KernelCheckTest, GraphsThatDrawNothingNewAreNoticed) {
  struct Launches : KeptWork {
    void Launch() override {
      launching = true;
      KeptWork::Launch();
      launching = false;
    }
  };
  right = kernels::MakeKernelTable();
  KernelTable table = right;
  table.attention_forward = [](Stream s, const AttentionForwardArgs& a) { right.attention_forward(s, AsRecorded(a)); };
  table.attention_backward = [](Stream s, const AttentionBackwardArgs& a) {
    right.attention_backward(s, AsRecorded(a));
  };
  KernelCheckOptions options = OptionsFor(table, {Transformer(at::kBFloat16), Transformer(at::kBFloat16, 0.5)});
  options.graphs = [] { return std::make_unique<Launches>(); };
  const KernelCheck check = CheckKernels(at::kCPU, options);
  EXPECT_TRUE(check.kernels) << check.why_not;
  EXPECT_FALSE(check.graphs);
  EXPECT_THAT(check.why_not, AllOf(HasSubstr("dropout 0.5) as a graph: "), HasSubstr("operation by operation")));
}

}  // namespace
}  // namespace allometry::trainer
