#include <gtest/gtest.h>

#include "arch/architecture.h"
#include "arch/inventory.h"
#include "arch/objective.h"

namespace allometry::arch {
namespace {

using common::Json;

constexpr Lengths kT5Lengths{512, 114};

const Architecture& Find(std::string_view name) { return **FindArchitecture(name); }
Json Options(std::string_view name, const Json& given = nullptr) { return *CompleteOptions(Find(name), given); }
ParameterCount Parameters(std::string_view name, const Shape& shape, const Json& given = nullptr) {
  return Find(name).CountParameters(shape, Options(name, given));
}

// Totals of the public T5 checkpoints, in millions as printed (SCIENCE section 2).
TEST(ArchCosts, TransformerTotalsAreThoseOfThePublicCheckpoints) {
  const std::pair<const char*, double> rows[] = {{"nano", 2.55},  {"micro", 4.27}, {"milli", 8.09}, {"tiny", 15.57},
                                                 {"mini", 31.22}, {"small", 60.5}, {"base", 222.9}, {"large", 737.7},
                                                 {"xl", 2851.6},  {"xxl", 11307}};
  for (const auto& [size, millions] : rows) {
    const double printed_digit = millions < 60 ? 0.01 : millions < 10000 ? 0.1 : 1;
    EXPECT_NEAR(Parameters("transformer", *FindSize(size)).total * 1e-6, millions, printed_digit / 2 + 1e-9) << size;
  }
}

TEST(ArchCosts, TransformerNonEmbeddingOfTheSmallRows) {
  const std::pair<const char*, double> rows[] = {{"nano", 0.49}, {"micro", 1.18}, {"milli", 2.95}, {"tiny", 7.35}};
  for (const auto& [size, millions] : rows)
    EXPECT_NEAR(Parameters("transformer", *FindSize(size)).non_embedding * 1e-6, millions, 0.005) << size;
}

// The paper's axis runs from 1.1e12 to 1.4e14; the vanilla rows are SCIENCE section 6's.
TEST(ArchCosts, MeshTensorFlowCountOfTheTransformer) {
  const std::pair<const char*, double> rows[] = {{"tiny", 1.16e12}, {"base", 1.106e13}, {"xl", 1.24e14}};
  for (const auto& [size, madds] : rows) {
    const FlopCount flops = Find("transformer").CountFlops(*FindSize(size), Options("transformer"), kT5Lengths);
    EXPECT_NEAR(flops.mtf_multiply_adds / madds, 1.0, 0.005) << size;
  }
}

// SCIENCE section 6: 128 forward passes, look-ups as a product with one-hot rows, no dense convolutions, and Switch's
// way to its slots and back.
TEST(ArchCosts, MeshTensorFlowCountOfEveryArchitecture) {
  for (const char* size : {"tiny", "base"}) {
    const Shape shape = *FindSize(size);
    const int64_t s = 512, t = 114, d = shape.d_model, v = shape.vocabulary, layers = shape.encoder_layers;
    for (const Architecture* a : Architectures()) {
      const FlopCount flops = a->CountFlops(shape, Options(std::string(a->name())), kT5Lengths);
      int64_t multiply_adds = flops.forward / 2 + (s + t) * v * (a->name() == "albert" ? 128 : d);
      if (a->name() == "evolved") multiply_adds -= layers / 2 * s * (d * d / 2) * 3;
      if (a->name() == "switch")
        for (int64_t n : {s, t}) multiply_adds += 2 * (layers / 4) * n * (32 * std::max<int64_t>(4, 1.2 * n / 32)) * d;
      EXPECT_EQ(flops.mtf_multiply_adds, 128.0 * static_cast<double>(multiply_adds)) << a->name() << ' ' << size;
    }
  }
}

// By hand, for one layer a stack: d 4, inner 2 x 3 = 6, d_ff 8, vocabulary 10, 5 inputs, 3 targets.
TEST(ArchCosts, TransformerForwardFlopsByHand) {
  const Shape shape{1, 1, 4, 8, 2, 3, 10};
  const int64_t encoder = 5 * 4 * (4 * 6) + 2 * 5 * 5 * 6 + 5 * 2 * (4 * 8);
  const int64_t decoder =
      3 * 4 * (4 * 6) + 2 * 3 * 3 * 6 + 2 * 3 * (4 * 6) + 2 * 5 * (4 * 6) + 2 * 3 * 5 * 6 + 3 * 2 * (4 * 8);
  const FlopCount flops = Find("transformer").CountFlops(shape, Options("transformer"), {5, 3});
  EXPECT_EQ(flops.forward_without_head, 2 * (encoder + decoder));
  EXPECT_EQ(flops.forward, 2 * (encoder + decoder + 3 * 4 * 10));
}

TEST(ArchCosts, GluKeepsTheCostOfTheFeedForwardLayers) {
  const Shape base = *FindSize("base");
  const double glu = Parameters("glu", base).total, plain = Parameters("transformer", base).total;
  EXPECT_NEAR(glu / plain, 1.0, 0.001);  // 2/3 of 3072 is 2048 exactly
  EXPECT_EQ(Parameters("glu", base, {{"tied_embedding", false}}).total - static_cast<int64_t>(glu),
            base.vocabulary * base.d_model);
}

TEST(ArchCosts, AlbertsParametersDoNotGrowWithDepthAndItsFlopsDo) {
  Shape shallow = *FindSize("base"), deep = shallow;
  deep.encoder_layers = deep.decoder_layers = 2 * shallow.encoder_layers;
  EXPECT_EQ(Parameters("albert", shallow).total, Parameters("albert", deep).total);
  const auto flops = [](const Shape& s) { return Find("albert").CountFlops(s, Options("albert"), kT5Lengths); };
  EXPECT_GT(flops(deep).forward, 1.9 * flops(shallow).forward);
}

TEST(ArchCosts, AlbertsEmbedding) {
  const Shape base = *FindSize("base");
  const auto embedding = [&](const Json& given) {
    const ParameterCount count = Parameters("albert", base, given);
    return count.total - count.non_embedding;
  };
  EXPECT_EQ(embedding(nullptr), base.vocabulary * 128 + 128 * base.d_model);
  EXPECT_EQ(embedding({{"factor", 64}}), base.vocabulary * 64 + 64 * base.d_model);
  EXPECT_EQ(embedding({{"factor", 0}}), base.vocabulary * base.d_model);
  EXPECT_EQ(embedding({{"factor", 0}, {"untied_softmax", true}}), 2 * base.vocabulary * base.d_model);
}

TEST(ArchCosts, LconvReplacesSelfAttentionAndHasNoRelativeBias) {
  const Shape shape = *FindSize("tiny");
  const int64_t d = shape.d_model;
  const int64_t attention = 4 * d * d * 8 + 2 * 32 * shape.heads;  // heads x d_kv is d_model at tiny
  const int64_t convolution = (4 * d * d + 9 * d) * 8;
  EXPECT_EQ(Parameters("lconv", shape).total, Parameters("transformer", shape).total - attention + convolution);
  EXPECT_EQ(Parameters("lconv", shape).total - Parameters("lconv", shape, {{"heads", 4}}).total, 9 * (d - 4) * 8);
}

TEST(ArchCosts, LconvIsLinearInTheInputLength) {
  const Shape shape = *FindSize("tiny");
  const auto forward = [&](int64_t inputs) {
    return Find("lconv").CountFlops(shape, Options("lconv"), {inputs, 10}).forward;
  };
  EXPECT_EQ(forward(300) - forward(200), forward(200) - forward(100));
}

// The shares are SCIENCE section 2's.
TEST(ArchCosts, DconvIsAsLargeAsTheTransformerNearBaseOnly) {
  const auto share = [](const char* size) {
    const Shape shape = *FindSize(size);
    return static_cast<double>(Parameters("dconv", shape).total) / Parameters("transformer", shape).total;
  };
  EXPECT_NEAR(share("base"), 1.15, 0.005);
  EXPECT_NEAR(share("xl"), 1 - 0.52, 0.005);
  EXPECT_NEAR(share("xxl"), 1 - 0.70, 0.005);
}

TEST(ArchCosts, DconvReplacesSelfAttentionAndNarrowsTheFeedForwardLayers) {
  const Shape shape = *FindSize("tiny");
  const int64_t d = shape.d_model, narrow = 168;  // 1024 / 6 = 170.67, to the nearest multiple of 8
  const int64_t attention = (4 * d * d + 2 * d * shape.d_ff) * 8 + 2 * 32 * shape.heads;
  const int64_t convolution = (13 * d * d + 2 * d * narrow) * 8;
  EXPECT_EQ(Parameters("dconv", shape).total, Parameters("transformer", shape).total - attention + convolution);
  EXPECT_EQ(Parameters("dconv", shape).total - Parameters("dconv", shape, {{"heads", 4}}).total, 9 * (d - 4) * d * 8);
}

TEST(ArchCosts, MosPaysForEachSoftmax) {
  const Shape shape = *FindSize("tiny");
  const int64_t d = shape.d_model, v = shape.vocabulary;
  EXPECT_EQ(Parameters("mos", shape).total, Parameters("transformer", shape).total + 15 * (d * d + d));
  const FlopCount plain = Find("transformer").CountFlops(shape, Options("transformer"), kT5Lengths);
  const FlopCount mos = Find("mos").CountFlops(shape, Options("mos"), kT5Lengths);
  EXPECT_EQ(mos.forward - mos.forward_without_head, 15 * (plain.forward - plain.forward_without_head));
  EXPECT_EQ(mos.forward - plain.forward, 2 * 114 * (14 * d * v + 15 * (d * d + d)));
}

TEST(ArchCosts, MixersLengthIsPartOfItsParameters) {
  const Shape shape = *FindSize("tiny");
  const int64_t d = shape.d_model, hidden = d / 2;
  const auto total = [&](const Json& given) { return Parameters("mixer", shape, given).total; };
  const int64_t attention = 4 * d * d * 4 + 32 * shape.heads;  // of one stack
  EXPECT_EQ(total(nullptr), Parameters("transformer", shape).total - attention + 2 * 512 * hidden * 4);
  EXPECT_EQ(total({{"input_length", 128}}), total(nullptr) - 2 * 384 * hidden * 4);
  EXPECT_EQ(total({{"target_length", 29}}), total(nullptr)) << "attention takes any number of targets";
  EXPECT_EQ(total({{"decoder", "causal_mixing"}}), total(nullptr) - attention + 2 * 114 * hidden * 4);
}

TEST(ArchCosts, MixerReadsNoMoreThanItsLength) {
  const Shape shape = *FindSize("tiny");
  const auto forward = [&](int64_t inputs) {
    return Find("mixer").CountFlops(shape, Options("mixer", {{"input_length", 128}}), {inputs, 10}).forward;
  };
  EXPECT_LT(forward(64), forward(128));
  EXPECT_EQ(forward(300), forward(128));
}

// By hand, for one Evolved layer a stack: d 4, inner 2 x 3 = 6 (12 with twice the heads), d_ff 8, vocabulary 10, 5
// inputs, 3 targets.
TEST(ArchCosts, EvolvedByHand) {
  const Shape shape{2, 2, 4, 8, 2, 3, 10};
  const int64_t encoder = 2 * 16 + (16 * 4 + 3 * 4 * 2 + 9 * 16 + 16 * 2) + 4 * 24 + 2 * 32;
  const int64_t dual = 4 * (4 * 12) + 4 * 24, convolutions = (11 * 4 + 4 * 8) + (7 * 4 + 4 * 2) + (7 * 8 + 8 * 4);
  const int64_t decoder = dual + convolutions + 4 * 24 + 4 * 24 + 2 * 32;
  const int64_t norms = (4 * 4 + 16) + (5 * 4 + 8) + 2 * 4, tables = 32 * (2 + 2 + 4);
  EXPECT_EQ(Parameters("evolved", shape).total, 10 * 4 + encoder + decoder + norms + tables);
  const int64_t forward = 5 * (encoder + 2 * 5 * 6) + 3 * (decoder - 4 * 24 + 2 * 3 * 12 + 2 * 3 * 6 + 4 * 5 * 6) +
                          5 * (4 * 24) + 3 * 4 * 10;  // cross-attention's keys and values are of the inputs
  const FlopCount flops = Find("evolved").CountFlops(shape, Options("evolved"), {5, 3});
  EXPECT_EQ(flops.forward, 2 * forward);
  const int64_t uncounted = 5 * (3 * 4 * 2), lookups = (5 + 3) * 10 * 4;
  EXPECT_EQ(flops.mtf_multiply_adds, 128.0 * static_cast<double>(forward - uncounted + lookups));
}

// By hand: one layer a stack makes 2 + 2 + 2 applications of its block.
TEST(ArchCosts, UniversalByHand) {
  const Shape shape{1, 1, 4, 8, 2, 3, 10};
  const int64_t encoder = 4 * 24 + 2 * 32, decoder = 8 * 24 + 2 * 32, gates = 6 * 16;
  const int64_t rest = 2 * 10 * 4 + (2 + 3 + 2) * 4 + 2 * (32 * 2) + 2 * (2 * 4);  // embeddings, norms, tables, signals
  EXPECT_EQ(Parameters("universal", shape).total, encoder + decoder + (2 + 3) * (gates + 2 * 4) + rest);
  EXPECT_EQ(Parameters("universal", shape, {{"gate", "none"}}).total, encoder + decoder + rest);
  EXPECT_EQ(Parameters("universal", shape, {{"gate", "none"}, {"halting", "act"}}).total, encoder + decoder + rest + 8);
  const int64_t plain = 6 * (5 * (encoder + 2 * 5 * 6) + 3 * (6 * 24 + 2 * 32 + 2 * 3 * 6 + 2 * 5 * 6) + 5 * (2 * 24));
  const int64_t head = 3 * 4 * 10, gated = 6 * (5 * 2 + 3 * 3) * gates, halts = 2 * (5 + 3) * 4;
  const auto forward = [&](const Json& given) {
    return Find("universal").CountFlops(shape, Options("universal", given), {5, 3}).forward;
  };
  EXPECT_EQ(forward(nullptr), 2 * (plain + gated + head));
  EXPECT_EQ(forward({{"gate", "none"}}), 2 * (plain + head));
  EXPECT_EQ(forward({{"halting", "act"}}), 2 * (plain + gated + halts + head));
}

// Sums over 256 features cost what a row of 512 keys does, and the decoder's 114 targets are fewer than that.
TEST(ArchCosts, PerformerIsNoCheaperAtTheRecipesLengthsAndIsAtLongOnes) {
  const auto forward = [](const char* name, const Shape& shape, Lengths n) {
    return static_cast<double>(Find(name).CountFlops(shape, Options(name), n).forward);
  };
  for (const Size& size : Sizes()) {
    EXPECT_GT(forward("performer", size.shape, kT5Lengths), forward("transformer", size.shape, kT5Lengths))
        << size.name;
    EXPECT_LT(forward("performer", size.shape, {4096, 114}), forward("transformer", size.shape, {4096, 114}))
        << size.name;
  }
  EXPECT_EQ(Parameters("transformer", *FindSize("tiny")).total - Parameters("performer", *FindSize("tiny")).total,
            2 * 32 * 4)
      << "no bias tables, and the features are no parameters";
}

TEST(ArchCosts, PerformerIsLinearInTheInputLength) {
  const Shape shape = *FindSize("tiny");
  const auto forward = [&](int64_t inputs) {
    return Find("performer").CountFlops(shape, Options("performer"), {inputs, 10}).forward;
  };
  EXPECT_EQ(forward(300) - forward(200), forward(200) - forward(100));
}

// By hand, for three encoder layers of one block each: d 4, inner 6, d_ff 8, vocabulary 10; 6 inputs pad to 8.
TEST(ArchCosts, FunnelForwardFlopsByHand) {
  const Shape shape{3, 1, 4, 8, 2, 3, 10};
  const int64_t product = 4 * 6, feed_forward = 2 * 4 * 8;
  const int64_t first = 8 * 4 * product + 2 * 8 * 8 * 6 + 8 * feed_forward;
  const int64_t second = (2 * 4 + 2 * 8) * product + 2 * 4 * 8 * 6 + 4 * feed_forward;
  const int64_t third = (2 * 2 + 2 * 4) * product + 2 * 2 * 4 * 6 + 2 * feed_forward;
  const int64_t decoder =
      3 * 4 * product + 2 * 3 * 3 * 6 + (2 * 3 + 2 * 2) * product + 2 * 3 * 2 * 6 + 3 * feed_forward;
  const auto forward = [&](int64_t inputs, const Json& given) {
    return Find("funnel").CountFlops(shape, Options("funnel", given), {inputs, 3}).forward_without_head;
  };
  for (int64_t inputs : {5, 6, 7, 8}) EXPECT_EQ(forward(inputs, nullptr), 2 * (first + second + third + decoder));
  const int64_t unpooled_queries = 2 * 4 * product + 2 * 4 * 8 * 6 + 2 * 2 * product + 2 * 2 * 4 * 6;
  EXPECT_EQ(forward(8, {{"pool", "after_attention"}}) - forward(8, nullptr), 2 * unpooled_queries);
}

TEST(ArchCosts, FunnelHasTheParametersOfTheTransformer) {
  for (const char* size : {"tiny", "base"})
    EXPECT_EQ(Parameters("funnel", *FindSize(size)).total, Parameters("transformer", *FindSize(size)).total) << size;
}

TEST(ArchCosts, MemoryGrowsWithTheMicroBatchInActivationsOnly) {
  for (const Architecture* a : Architectures()) {
    const Json options = *CompleteOptions(*a, nullptr);
    const MemoryEstimate one = a->EstimateMemory(*FindSize("tiny"), options, {kT5Lengths, 1, "fp32", "adafactor"});
    const MemoryEstimate four = a->EstimateMemory(*FindSize("tiny"), options, {kT5Lengths, 4, "fp32", "adafactor"});
    EXPECT_EQ(four.activations_bytes, 4 * one.activations_bytes) << a->name();
    EXPECT_EQ(four.workspace_bytes, 4 * one.workspace_bytes) << a->name();
    EXPECT_EQ(four.process_bytes, one.process_bytes) << a->name();
    EXPECT_EQ(four.weights_bytes, one.weights_bytes) << a->name();
    const MemoryEstimate adamw = a->EstimateMemory(*FindSize("tiny"), options, {kT5Lengths, 1, "fp32", "adamw"});
    EXPECT_EQ(adamw.optimizer_bytes, 8 * a->CountParameters(*FindSize("tiny"), options).total) << a->name();
    EXPECT_LT(one.optimizer_bytes, adamw.optimizer_bytes / 10) << a->name();
  }
}

TEST(ArchLengths, SpanCorruptionArithmetic) {
  const auto check = [](int64_t inputs, int64_t raw, int64_t targets) {
    const ObjectiveLengths n = LengthsOf({.input_length = inputs});
    EXPECT_EQ(n.raw, raw);
    EXPECT_EQ(n.inputs, inputs);
    EXPECT_EQ(n.targets, targets);
  };
  check(512, 568, 114);  // the published numbers
  check(128, 141, 29);   // the same rule, evaluated by a script of its own
  check(64, 70, 14);
}

// Said again in another way: exact fractions, halves to even, and raw lengths tried from the longest down.
TEST(ArchLengths, SpanCorruptionArithmeticAtManyLengths) {
  struct Ratio {
    int64_t numerator, denominator;
  };
  const auto round_half_even = [](int64_t numerator, int64_t denominator) {
    const int64_t whole = numerator / denominator, twice_rest = 2 * (numerator % denominator);
    if (twice_rest == denominator) return whole + whole % 2;
    return whole + (twice_rest > denominator);
  };
  for (const auto& [density, span] :
       std::vector<std::pair<Ratio, int64_t>>{{{3, 20}, 3}, {{1, 2}, 3}, {{1, 4}, 2}, {{1, 8}, 1}, {{3, 20}, 8}})
    for (int64_t inputs = 4; inputs <= 800; ++inputs) {
      const auto lengths = [&](int64_t raw) {
        const int64_t noise =
            std::min(raw - 1, std::max<int64_t>(1, round_half_even(raw * density.numerator, density.denominator)));
        const int64_t spans = std::max<int64_t>(1, round_half_even(noise, span));
        return ObjectiveLengths{raw, raw - noise + spans + 1, noise + spans + 1};
      };
      int64_t raw = 4 * inputs;
      while (raw > 2 && lengths(raw).inputs > inputs) --raw;
      const ObjectiveLengths n =
          LengthsOf({.input_length = inputs,
                     .noise_density = static_cast<double>(density.numerator) / static_cast<double>(density.denominator),
                     .mean_span_length = static_cast<double>(span)});
      ASSERT_EQ(n.raw, raw) << inputs;
      ASSERT_EQ(n.inputs, lengths(raw).inputs) << inputs;
      ASSERT_EQ(n.targets, lengths(raw).targets) << inputs;
    }
}

TEST(ArchLengths, OtherObjectivesHaveTheLengthsThatAreAskedFor) {
  const auto lengths = [](const ObjectiveSettings& settings) {
    const ObjectiveLengths n = LengthsOf(settings);
    return std::vector<int64_t>{n.raw, n.inputs, n.targets};
  };
  EXPECT_EQ(lengths({.name = "prefix_lm"}), (std::vector<int64_t>{511, 512, 512}));
  EXPECT_EQ(lengths({.name = "prefix_lm", .input_length = 256, .target_length = 64}),
            (std::vector<int64_t>{255, 256, 64}));
  EXPECT_EQ(lengths({.name = "bert", .input_length = 128}), (std::vector<int64_t>{127, 128, 128}));
}

TEST(ArchLengths, CheckedObjectivesHaveAtMostOneSpanASentinel) {
  EXPECT_TRUE(CheckObjective({}));
  EXPECT_TRUE(CheckObjective({.input_length = 1'800}));
  int64_t longest = 512;
  while (CheckObjective({.input_length = longest + 1})) ++longest;
  const ObjectiveLengths n = LengthsOf({.input_length = longest});
  EXPECT_EQ(CountSpans(n.raw, 0.15, 3).spans, 100);
  EXPECT_EQ(CountSpans(568, 0.15, 3).noise, 85);
  EXPECT_EQ(CountSpans(568, 0.15, 3).spans, 28);
  EXPECT_TRUE(CheckObjective({.name = "bert", .input_length = 8192}));
  EXPECT_FALSE(CheckObjective({.name = "prefix_lm", .target_length = 513}));
}

TEST(ArchRounding, NearestMultipleOfEight) {
  EXPECT_EQ(RoundToMultipleOf8(192), 192);
  EXPECT_EQ(RoundToMultipleOf8(195.9), 192);
  EXPECT_EQ(RoundToMultipleOf8(196), 200);
  EXPECT_EQ(RoundToMultipleOf8(1), 8);
}

}  // namespace
}  // namespace allometry::arch
