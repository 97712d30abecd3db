#include "worker/trainer/kernels/flash_attention.h"

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "tests/unit/kernels/attention_reference.h"
#include "tests/unit/kernels/kernel_case.h"

namespace allometry::trainer::kernels {
namespace {

// What a result may be off by. Probabilities and dS are rounded to bfloat16 between two products, the output before the
// backward pass reads it, every result when it is stored: each by up to 2^-8 relative, by 2^-9.8 in the root mean
// square. So the tensors' distances are tight; a single value, which may be the difference of much larger ones, is held
// to its size plus the tensor's root mean square. The table's gradient is the worst: dS sums to 0 over a row, and what
// Delta is off by from the output's rounding is the same for all of it.
struct Tolerances {
  double distance;  // root mean square of the errors / that of the values
  double worst;     // |error| / (|value| + root mean square of the values)
};
constexpr Tolerances kForwardTolerance{3e-3, 1e-2}, kGradientTolerance{6e-3, 6e-2}, kTableTolerance{2e-2, 5e-2};

enum class Table { kNone, kFloat32, kBfloat16 };
enum class Mask {
  kNone,
  kTails,      // the last keys of every example, a different number in each
  kScattered,  // any of them
  kAll,        // as kTails, and of the first example all
};
enum class Layout { kHeadsFirst, kRowsFirst, kPacked };  // [b, h, n, d], [b, n, h, d], [b, n, 3, h, d]

struct Case {
  int batch, heads, queries, keys, depth;
  bool causal = false;
  Table table = Table::kFloat32;
  Mask mask = Mask::kNone;
  Layout layout = Layout::kRowsFirst;
  double dropout = 0;
};

std::string NameOf(const Case& c) {
  return "b" + std::to_string(c.batch) + " h" + std::to_string(c.heads) + " " + std::to_string(c.queries) + "x" +
         std::to_string(c.keys) + "x" + std::to_string(c.depth) + (c.causal ? " causal" : "") + " table " +
         std::to_string(static_cast<int>(c.table)) + " mask " + std::to_string(static_cast<int>(c.mask)) + " layout " +
         std::to_string(static_cast<int>(c.layout)) + " dropout " + std::to_string(c.dropout);
}

constexpr uint64_t kSeed = 0x0123456789abcdefull, kLayer = 3;
constexpr int64_t kFirstExample = 5;

// What the reference keeps, by the same function of the place.
double Kept(const void* context, int64_t batch, int64_t head, int64_t query, int64_t key) {
  const Case& c = *static_cast<const Case*>(context);
  const int64_t row = ((kFirstExample + batch) * c.heads + head) * c.queries + query;
  const uint32_t row_key = DropoutRowKey(kSeed, kLayer, static_cast<uint64_t>(row)), rate = DropoutRate(c.dropout);
  const uint32_t bits = DropoutBits(row_key, static_cast<uint32_t>(key / 2));
  return DropoutKeeps(bits, key % 2, rate) ? 65536.0 / (65536 - rate) : 0;
}

struct Results {
  Values out, lse, dq, dk, dv, dtable;
};

class FlashAttentionTest : public KernelTest {
 protected:
  // A [b, h, rows, d] tensor on the device as a layout says; what lies between its rows is NaN.
  struct Tensor {
    Array array;
    HeadStrides strides;
    int batch, heads, rows, depth;

    template <typename T>
    HeadRows<T> View() const {
      return {static_cast<T*>(array.memory), strides};
    }
    size_t At(int b, int h, int row, int d) const {
      return static_cast<size_t>(b * strides.batch + h * strides.head + row * strides.row + d);
    }
    template <typename Function>
    void ForAll(const Function& function) const {
      size_t dense = 0;
      for (int b = 0; b < batch; ++b)
        for (int h = 0; h < heads; ++h)
          for (int row = 0; row < rows; ++row)
            for (int d = 0; d < depth; ++d) function(dense++, At(b, h, row, d));
    }
    // Dense. What does not belong to the tensor must still be NaN.
    Values Read() const {
      Values memory = array.Read(), dense(static_cast<size_t>(batch) * heads * rows * depth);
      ForAll([&](size_t to, size_t from) {
        dense[to] = memory[from];
        memory[from] = std::nan("");
      });
      for (const double x : memory) EXPECT_TRUE(std::isnan(x)) << "a write between the rows";
      return dense;
    }
  };

  static HeadStrides StridesOf(const Case& c, int rows) {
    const int64_t h = c.heads, d = c.depth;
    if (c.layout == Layout::kHeadsFirst) return {h * rows * d, rows * d, d};
    const int64_t row = c.layout == Layout::kPacked ? 3 * h * d : h * d;
    return {rows * row, d, row};
  }
  Tensor Place(const Case& c, int rows, const Values* dense) {
    const HeadStrides strides = StridesOf(c, rows);
    const size_t count = static_cast<size_t>(c.batch * strides.batch);
    Tensor tensor{Array(&table(), DataType::kBfloat16, 0), strides, c.batch, c.heads, rows, c.depth};
    Values memory(count, std::nan(""));
    if (dense) tensor.ForAll([&](size_t from, size_t to) { memory[to] = (*dense)[from]; });
    return {Upload(memory, DataType::kBfloat16), strides, c.batch, c.heads, rows, c.depth};
  }

  Values MaskOf(const Case& c) {
    Values mask(static_cast<size_t>(c.batch * c.keys));
    for (int b = 0; b < c.batch; ++b) {
      const int64_t kept = c.mask == Mask::kAll && b == 0 ? 0 : 1 + Index(c.keys);
      for (int key = 0; key < c.keys; ++key)
        if (c.mask == Mask::kScattered ? Chance(0.3) : key >= kept) mask[static_cast<size_t>(b * c.keys + key)] = -3e38;
    }
    return mask;
  }

  ReferenceAttention Draw(const Case& c) {
    ReferenceAttention a;
    a.batch = c.batch;
    a.heads = c.heads;
    a.queries = c.queries;
    a.keys = c.keys;
    a.depth = c.depth;
    a.causal = c.causal;
    const auto rows = [&](int count) { return static_cast<size_t>(c.batch) * c.heads * count * c.depth; };
    // Scores of a few units, so that a row's probabilities are neither flat nor one key's.
    a.q = Random(rows(c.queries), DataType::kBfloat16, 1.5 / std::sqrt(static_cast<double>(c.depth)));
    a.k = Random(rows(c.keys), DataType::kBfloat16);
    a.v = Random(rows(c.keys), DataType::kBfloat16);
    if (c.table != Table::kNone)
      a.table = Random(static_cast<size_t>(32 * c.heads),
                       c.table == Table::kBfloat16 ? DataType::kBfloat16 : DataType::kFloat32, 2);
    if (c.mask != Mask::kNone) a.mask = MaskOf(c);
    if (c.dropout > 0) {
      a.kept = &Kept;
      a.kept_context = &c;
    }
    return a;
  }

  // Both passes, as a layer would call them.
  Results Run(const Case& c, const ReferenceAttention& a, const Values& dout, int times = 1) {
    const Tensor q = Place(c, c.queries, &a.q), k = Place(c, c.keys, &a.k), v = Place(c, c.keys, &a.v),
                 out = Place(c, c.queries, nullptr), gradient = Place(c, c.queries, &dout),
                 dq = Place(c, c.queries, nullptr), dk = Place(c, c.keys, nullptr), dv = Place(c, c.keys, nullptr);
    const Array bias = Upload(a.table, c.table == Table::kBfloat16 ? DataType::kBfloat16 : DataType::kFloat32),
                mask = Upload(a.mask, DataType::kFloat32),
                lse = Empty(static_cast<size_t>(c.batch) * c.heads * c.queries, DataType::kFloat32),
                dtable = Empty(a.table.size(), DataType::kFloat32);
    AttentionInputs in{.shape = {c.batch, c.heads, c.queries, c.keys, c.depth, c.causal},
                       .q = q.View<const Bf16>(),
                       .k = k.View<const Bf16>(),
                       .v = v.View<const Bf16>(),
                       .table = a.table.empty() ? nullptr : bias.memory,
                       .table_type = bias.type,
                       .mask = a.mask.empty() ? nullptr : mask.floats()};
    const Plain<uint64_t> seed = UploadPlain(std::vector<uint64_t>{kSeed});
    if (c.dropout > 0) in.dropout = {seed.get(), kLayer, kFirstExample, DropoutRate(c.dropout)};
    EXPECT_EQ(AttentionRefusal(in), nullptr);
    const Array workspace = Empty(AttentionWorkspaceBytes(in.shape) / 4, DataType::kFloat32);
    table().attention_forward(nullptr, {.in = in, .out = out.View<Bf16>(), .lse = lse.floats()});
    for (int i = 0; i < times; ++i)
      table().attention_backward(nullptr, {.in = in,
                                           .out = out.View<const Bf16>(),
                                           .dout = gradient.View<const Bf16>(),
                                           .lse = lse.floats(),
                                           .dq = dq.View<Bf16>(),
                                           .dk = dk.View<Bf16>(),
                                           .dv = dv.View<Bf16>(),
                                           .dtable = a.table.empty() ? nullptr : dtable.floats(),
                                           .add_to_table = i > 0,
                                           .workspace = workspace.memory});
    return {out.Read(), lse.Read(), dq.Read(), dk.Read(), dv.Read(), dtable.Read()};
  }

  void Check(const Case& c) {
    SCOPED_TRACE(NameOf(c));
    const ReferenceAttention a = Draw(c);
    const Values dout = Random(a.q.size(), DataType::kBfloat16);
    const Results got = Run(c, a, dout);
    const ReferenceResult want = Forward(a);
    const ReferenceGradients gradients = Backward(a, dout);
    ExpectNear(got.out, want.out, kForwardTolerance, "out");
    ExpectLse(got.lse, want.lse);
    ExpectNear(got.dq, gradients.dq, kGradientTolerance, "dq");
    ExpectNear(got.dk, gradients.dk, kGradientTolerance, "dk");
    ExpectNear(got.dv, gradients.dv, kGradientTolerance, "dv");
    ExpectNear(got.dtable, gradients.dtable, kTableTolerance, "dtable");
  }

  // With ALLOMETRY_SHOW_ERRORS set it prints what it finds.
  static void ExpectNear(const Values& got, const Values& want, const Tolerances& tolerances, const char* what) {
    ASSERT_EQ(got.size(), want.size()) << what;
    if (want.empty()) return;
    double squares = 0, errors = 0, worst = 0;
    size_t at = 0;
    for (const double w : want) squares += w * w;
    // Gradients of the scores of a single key are 0 but for rounding: not below what values of size 1 round to.
    const double size = std::max(std::sqrt(squares / static_cast<double>(want.size())), 1e-2);
    for (size_t i = 0; i < want.size(); ++i) {
      const double error = std::abs(got[i] - want[i]);
      errors += error * error;
      if (!(error <= worst * (std::abs(want[i]) + size))) {
        worst = error / (std::abs(want[i]) + size);
        at = i;
      }
    }
    const double distance = std::sqrt(errors / static_cast<double>(want.size())) / size;
    EXPECT_LE(distance, tolerances.distance) << what;
    EXPECT_LE(worst, tolerances.worst) << what << "[" << at << "]: " << got[at] << " for " << want[at];
    if (std::getenv("ALLOMETRY_SHOW_ERRORS")) std::printf("%-7s distance %.2e worst %.2e\n", what, distance, worst);
  }

 private:
  static void ExpectLse(const Values& got, const Values& want) {
    for (size_t i = 0; i < got.size(); ++i) {
      if (want[i] < -1e30)
        ASSERT_LT(got[i], -1e30) << i;
      else
        ASSERT_NEAR(got[i], want[i], 2e-5 * (1 + std::abs(want[i]))) << i;
    }
  }
};
ALLO_KERNEL_TEST(FlashAttentionTest);

TEST_P(FlashAttentionTest, SelfAttentionOfAnEncoder) {
  for (const int length : {1, 7, 64, 65, 114, 131, 200})
    Check({2, 2, length, length, 64, false, Table::kFloat32, Mask::kTails});
}

TEST_P(FlashAttentionTest, SelfAttentionOfADecoder) {
  for (const int length : {1, 7, 64, 65, 114, 131, 200}) Check({2, 2, length, length, 64, true});
}

TEST_P(FlashAttentionTest, CrossAttention) {
  Check({2, 2, 114, 150, 64, false, Table::kNone, Mask::kTails});
  Check({1, 3, 5, 70, 64, false, Table::kNone});
  Check({2, 1, 130, 3, 64, false, Table::kNone, Mask::kScattered});
}

// Distances beyond the last bucket's 128 on both sides, with whole tiles in it.
TEST_P(FlashAttentionTest, LongSequences) {
  Check({1, 1, 450, 450, 64, false, Table::kFloat32, Mask::kTails});
  Check({1, 1, 450, 450, 64, true});
  Check({1, 1, 40, 500, 64});
  Check({1, 1, 500, 40, 64});
}

TEST_P(FlashAttentionTest, MaskedKeys) {
  for (const bool causal : {false, true})
    for (const Mask mask : {Mask::kTails, Mask::kScattered, Mask::kAll})
      Check({3, 2, 90, 90, 64, causal, Table::kFloat32, mask});
  Check({3, 2, 90, 75, 64, false, Table::kNone, Mask::kAll});
}

TEST_P(FlashAttentionTest, Depths) {
  for (const int depth : {8, 16, 24, 32, 40, 96, 128})
    for (const bool causal : {false, true}) Check({1, 2, 97, 97, depth, causal, Table::kFloat32, Mask::kTails});
}

TEST_P(FlashAttentionTest, LayoutsAndTables) {
  for (const Layout layout : {Layout::kHeadsFirst, Layout::kRowsFirst, Layout::kPacked})
    for (const Table table : {Table::kFloat32, Table::kBfloat16})
      Check({2, 3, 70, 70, 16, false, table, Mask::kTails, layout});
}

TEST_P(FlashAttentionTest, DropsProbabilities) {
  const Layout layout = Layout::kRowsFirst;
  Check({2, 2, 130, 130, 64, false, Table::kFloat32, Mask::kTails, layout, 0.1});
  Check({2, 2, 114, 114, 64, true, Table::kFloat32, Mask::kNone, layout, 0.5});
  Check({1, 2, 40, 77, 32, false, Table::kNone, Mask::kAll, layout, 0.1});
  Check({1, 1, 70, 70, 128, true, Table::kBfloat16, Mask::kScattered, layout, 0.1});
}

// Causal with other numbers of queries and keys: keys that no query sees have no gradient.
TEST_P(FlashAttentionTest, CausalRectangles) {
  Check({1, 2, 40, 300, 64, true});
  Check({1, 2, 300, 40, 64, true});
}

TEST_P(FlashAttentionTest, RandomCases) {
  for (int i = 0; i < 12; ++i) {
    const int queries = 1 + static_cast<int>(Index(180)),
              keys = Chance(0.5) ? queries : 1 + static_cast<int>(Index(180));
    Check({1 + static_cast<int>(Index(2)), 1 + static_cast<int>(Index(2)), queries, keys,
           8 + 8 * static_cast<int>(Index(16)), Chance(0.5), static_cast<Table>(Index(3)), static_cast<Mask>(Index(4)),
           static_cast<Layout>(Index(3)), Chance(0.3) ? 0.2 : 0});
  }
}

// Scores so far apart that a row is one key's, and so large that only differences may be exponentiated.
TEST_P(FlashAttentionTest, LargeScores) {
  const Case c{1, 1, 100, 100, 64};
  ReferenceAttention a = Draw(c);
  for (double& x : a.q) x *= 64;
  const Values dout = Random(a.q.size(), DataType::kBfloat16);
  const Results got = Run(c, a, dout);
  ExpectNear(got.out, Forward(a).out, kForwardTolerance, "out");
  ExpectNear(got.dv, Backward(a, dout).dv, kGradientTolerance, "dv");
  for (const Values* values : {&got.dq, &got.dk, &got.dtable})
    for (const double x : *values) ASSERT_TRUE(std::isfinite(x));
}

TEST_P(FlashAttentionTest, ATableSharedByTwoCallsAddsUp) {
  const Case c{2, 2, 70, 70, 64};
  const ReferenceAttention a = Draw(c);
  const Values dout = Random(a.q.size(), DataType::kBfloat16);
  const Values once = Run(c, a, dout).dtable, twice = Run(c, a, dout, /*times=*/2).dtable;
  for (size_t i = 0; i < once.size(); ++i) ASSERT_EQ(twice[i], 2 * once[i]);
}

TEST_P(FlashAttentionTest, EqualBitsAtEveryRun) {
  const Case c{2, 2, 150, 150, 64, true, Table::kFloat32, Mask::kScattered};
  const ReferenceAttention a = Draw(c);
  const Values dout = Random(a.q.size(), DataType::kBfloat16);
  const Results first = Run(c, a, dout);
  emulated::UseOrder(99);
  const Results second = Run(c, a, dout);
  emulated::UseOrder(1);
  EXPECT_EQ(first.out, second.out);
  EXPECT_EQ(first.lse, second.lse);
  EXPECT_EQ(first.dq, second.dq);
  EXPECT_EQ(first.dk, second.dk);
  EXPECT_EQ(first.dv, second.dv);
  EXPECT_EQ(first.dtable, second.dtable);
}

// The share that is kept, and that it does not depend on what a neighbour in any direction is: each within five
// standard deviations of independent draws'.
TEST(AttentionDropout, IsAsIndependentAsItShouldBe) {
  constexpr int kRows = 512, kKeys = 512;
  const uint32_t rate = DropoutRate(0.1);
  std::vector<char> kept;
  for (int row = 0; row < kRows; ++row) {
    const uint32_t row_key = DropoutRowKey(17, 0, static_cast<uint64_t>(row));
    for (int key = 0; key < kKeys; ++key)
      kept.push_back(DropoutKeeps(DropoutBits(row_key, static_cast<uint32_t>(key / 2)), key % 2, rate));
  }
  const auto expect_share = [](int64_t hits, int64_t of, double share) {
    EXPECT_NEAR(static_cast<double>(hits), share * static_cast<double>(of),
                5 * std::sqrt(share * (1 - share) * static_cast<double>(of)));
  };
  int64_t all = 0;
  for (const char k : kept) all += k;
  expect_share(all, kRows * kKeys, 0.9);
  for (const int step : {1, 2, 3, 4, 8, 32, 64, kKeys, kKeys + 1, 2 * kKeys, 128 * kKeys}) {
    int64_t both_dropped = 0, of = 0;
    for (size_t i = 0; i + step < kept.size(); ++i, ++of) both_dropped += !kept[i] && !kept[i + step];
    expect_share(both_dropped, of, 0.01);
  }
  int64_t same = 0;  // another layer's
  for (int row = 0; row < kRows; ++row)
    for (int key = 0; key < kKeys; ++key) {
      const uint32_t bits =
          DropoutBits(DropoutRowKey(17, 1, static_cast<uint64_t>(row)), static_cast<uint32_t>(key / 2));
      same += !kept[static_cast<size_t>(row * kKeys + key)] && !DropoutKeeps(bits, key % 2, rate);
    }
  expect_share(same, kRows * kKeys, 0.01);
}

TEST(AttentionRefusal, TellsWhatTheKernelsCannot) {
  alignas(16) const Bf16 memory[8] = {};
  AttentionInputs in{.shape = {1, 1, 1, 1, 64, false}};
  in.q = in.k = in.v = {memory, {64, 64, 64}};
  EXPECT_EQ(AttentionRefusal(in), nullptr);
  in.shape.depth = 136;
  EXPECT_NE(AttentionRefusal(in), nullptr);
  in.shape.depth = 12;
  EXPECT_NE(AttentionRefusal(in), nullptr);
  in.shape.depth = 64;
  in.k.strides.row = 68;
  EXPECT_NE(AttentionRefusal(in), nullptr);
  in.k.strides.row = 64;
  in.v.data = memory + 1;
  EXPECT_NE(AttentionRefusal(in), nullptr);
  in.v.data = memory;
  in.shape.keys = 0;
  EXPECT_NE(AttentionRefusal(in), nullptr);
}

}  // namespace
}  // namespace allometry::trainer::kernels
