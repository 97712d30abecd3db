#include "worker/trainer/data/pretrain_batches.h"

#include <gmock/gmock.h>

#include <map>
#include <set>

#include "common/sha256.h"
#include "tests/unit/trainer_data/token_fixture.h"

namespace allometry::trainer {
namespace {

using ::testing::HasSubstr;
using Row = std::vector<int64_t>;
using PretrainExample = std::pair<Row, Row>;  // inputs, targets

const arch::ObjectiveSettings kSpans{.input_length = 64}, kPrefix{.name = "prefix_lm", .input_length = 64},
    kBert{.name = "bert", .input_length = 64};

Ids Narrow(const Row& row) { return {row.begin(), row.end()}; }

class PretrainBatchesTest : public TokenFixture {
 protected:
  void SetUp() override {
    TokenFixture::SetUp();
    text_ = WriteTokens("text", RandomDocuments(300, 7));
    parts_ = {{.name = "text", .train = text_, .valid = text_}};
  }

  PretrainBatches Make(uint64_t seed, int64_t rows = 4, const arch::ObjectiveSettings& settings = kSpans,
                       Join join = Join::kEndMark) {
    return *PretrainBatches::Create(parts_, TokenFixture::Make(settings), join, rows, seed);
  }
  ValidationBatches MakeValidation(int64_t examples, const arch::ObjectiveSettings& settings = kSpans) {
    return *ValidationBatches::Create(parts_, TokenFixture::Make(settings), Join::kEndMark, examples);
  }

  static PretrainExample RowOf(const PretrainBatches& batches, int64_t step, int64_t row) {
    Row inputs(batches.lengths().inputs), targets(batches.lengths().targets);
    batches.Fill(step, row, 1, inputs.size(), targets.size(), inputs.data(), targets.data());
    return {inputs, targets};
  }
  static PretrainExample RowOf(const ValidationBatches& batches, int64_t row) {
    Row inputs(batches.lengths().inputs), targets(batches.lengths().targets);
    batches.Fill(row, 1, inputs.size(), targets.size(), inputs.data(), targets.data());
    return {inputs, targets};
  }
  static Ids RawOf(const PretrainExample& example, const arch::ObjectiveSettings& settings = kSpans) {
    Ids targets = Narrow(example.second);
    if (settings.name != "bert") return Restored(*TokenFixture::Make(settings), Narrow(example.first), targets);
    while (targets.back() == kPad) targets.pop_back();
    targets.pop_back();
    return targets;
  }

  // All sequences of a text.
  static std::multiset<Ids> SequencesOf(const TokenFile& text, Join join, int64_t raw) {
    const Sequences sequences(text, join, raw);
    std::multiset<Ids> all;
    for (int64_t i = 0; i < sequences.size(); ++i) {
      Ids ids;
      sequences.Read(i, &ids);
      all.insert(ids);
    }
    return all;
  }

  TokenFile text_;
  std::vector<TextPart> parts_;
};

// What one text gave before there were parts, other objectives and other ways to join.
TEST_F(PretrainBatchesTest, OneTextGivesTheBatchesItAlwaysGave) {
  const PretrainBatches batches = Make(11, 16);
  const arch::ObjectiveLengths n = batches.lengths();
  ASSERT_EQ(text_.tokens(), 13'856);
  Row all, inputs(16 * n.inputs), targets(16 * n.targets);
  const auto add = [&] {
    all.insert(all.end(), inputs.begin(), inputs.end());
    all.insert(all.end(), targets.begin(), targets.end());
  };
  const auto hash = [&] { return common::Sha256Hex({reinterpret_cast<const char*>(all.data()), all.size() * 8}); };
  for (int64_t step : {0, 1, 2, 40, 41, 1'000'000}) {
    batches.Fill(step, 0, 16, n.inputs, n.targets, inputs.data(), targets.data());
    add();
  }
  EXPECT_EQ(hash(), "aca7a402b355586b374a19f0b53d0a48bafeb3895e9d5a35a19b32effe251f0f");
  all.clear();
  inputs.resize(50 * n.inputs);
  targets.resize(50 * n.targets);
  MakeValidation(50).Fill(0, 50, n.inputs, n.targets, inputs.data(), targets.data());
  add();
  EXPECT_EQ(hash(), "229aa920e74c55b7807ca1bfbbef5afddd6e61e6c27ba4546b173312e06dd6b3");
}

TEST_F(PretrainBatchesTest, AnEpochIsTheTextOnceInAnyOrder) {
  for (const arch::ObjectiveSettings& settings : {kSpans, kPrefix, kBert})
    for (Join join : {Join::kEndMark, Join::kNone}) {
      const PretrainBatches batches = Make(3, 4, settings, join);
      const int64_t sequences = batches.Use(0)[0].sequences;
      ASSERT_GT(sequences, 30);
      std::multiset<Ids> seen[2];
      std::vector<Ids> order[2];
      for (int64_t number = 0; number < 2 * sequences; ++number) {
        const int64_t epoch = number / sequences;
        order[epoch].push_back(RawOf(RowOf(batches, number / 4, number % 4), settings));
        seen[epoch].insert(order[epoch].back());
      }
      const auto stored = SequencesOf(text_, join, batches.lengths().raw);
      EXPECT_EQ(seen[0], stored) << settings.name;
      EXPECT_EQ(seen[1], stored) << settings.name;
      EXPECT_NE(order[0], order[1]) << "each epoch has an order of its own";
    }
}

TEST_F(PretrainBatchesTest, RowsDependOnSeedStepAndRowOnly) {
  for (const arch::ObjectiveSettings& settings : {kSpans, kPrefix, kBert}) {
    const PretrainBatches batches = Make(3, 4, settings), again = Make(3, 4, settings), other = Make(4, 4, settings);
    const arch::ObjectiveLengths n = batches.lengths();
    Row inputs(4 * n.inputs), targets(4 * n.targets);
    batches.Fill(7, 0, 4, n.inputs, n.targets, inputs.data(), targets.data());
    for (int64_t row : {3, 0, 2, 1}) {
      const auto [in, out] = RowOf(again, 7, row);
      EXPECT_TRUE(std::equal(in.begin(), in.end(), inputs.begin() + row * n.inputs)) << row;
      EXPECT_TRUE(std::equal(out.begin(), out.end(), targets.begin() + row * n.targets)) << row;
    }
    EXPECT_NE(RowOf(batches, 7, 0), RowOf(other, 7, 0));
    EXPECT_NE(RowOf(batches, 7, 0), RowOf(batches, 8, 0));
  }
}

TEST_F(PretrainBatchesTest, ARepeatedSequenceIsMaskedAnew) {
  const PretrainBatches batches = Make(3, 1);
  const int64_t sequences = batches.Use(0)[0].sequences;
  std::map<Ids, Row> first;
  for (int64_t i = 0; i < sequences; ++i) first[RawOf(RowOf(batches, i, 0))] = RowOf(batches, i, 0).second;
  int64_t same = 0;
  for (int64_t i = 0; i < sequences; ++i) {
    const PretrainExample example = RowOf(batches, sequences + i, 0);
    same += first.at(RawOf(example)) == example.second;
  }
  EXPECT_LE(same, 1);
}

TEST_F(PretrainBatchesTest, WiderRowsArePadded) {
  const PretrainBatches batches = Make(3);
  const arch::ObjectiveLengths n = batches.lengths();
  Row inputs(2 * (n.inputs + 5), -1), targets(2 * (n.targets + 3), -1);
  batches.Fill(0, 0, 2, n.inputs + 5, n.targets + 3, inputs.data(), targets.data());
  const auto [in, out] = RowOf(batches, 0, 1);
  EXPECT_TRUE(std::equal(in.begin(), in.end(), inputs.begin() + n.inputs + 5));
  EXPECT_TRUE(std::all_of(inputs.end() - 5, inputs.end(), [](int64_t id) { return id == kPad; }));
  EXPECT_TRUE(std::all_of(targets.end() - 3, targets.end(), [](int64_t id) { return id == kPad; }));
  EXPECT_THROW(batches.Fill(0, 0, 1, n.inputs - 1, n.targets, inputs.data(), targets.data()), std::invalid_argument);
}

TEST_F(PretrainBatchesTest, EpochsAndWhatIsLeftOutAreTold) {
  const PretrainBatches joined = Make(3, 8);
  const PartUse use = joined.Use(100)[0];
  EXPECT_EQ(use.name, "text");
  EXPECT_EQ(use.rate, 1);
  EXPECT_EQ(use.rows, 800);
  EXPECT_EQ(use.sequences, text_.tokens() / joined.lengths().raw);
  EXPECT_DOUBLE_EQ(use.epochs(), 800.0 / static_cast<double>(use.sequences));
  EXPECT_EQ(use.left_out, text_.tokens() % joined.lengths().raw);
  const Sequences apart(text_, Join::kNone, joined.lengths().raw);
  EXPECT_GT(apart.left_out(), 0);
  EXPECT_EQ(Make(3, 8, kSpans, Join::kNone).Use(1)[0].left_out, apart.left_out());
}

class MixtureTest : public PretrainBatchesTest {
 protected:
  void SetUp() override {
    PretrainBatchesTest::SetUp();
    const TokenFile small = WriteTokens("small", RandomDocuments(40, 8));
    const TokenFile third = WriteTokens("third", RandomDocuments(90, 9));
    parts_ = {{"large", 6, text_, text_}, {"small", 1, small, small}, {"third", 3, third, third}};
  }
};

// Each part is passed through by itself, whatever the others do.
TEST_F(MixtureTest, EachPartHasEpochsOfItsOwn) {
  const PretrainBatches batches = Make(5, 16);
  const int64_t raw = batches.lengths().raw, steps = 60;
  std::vector<std::multiset<Ids>> stored;
  for (const TextPart& part : parts_) stored.push_back(SequencesOf(part.train, Join::kEndMark, raw));
  std::vector<std::vector<Ids>> drawn(parts_.size());
  for (int64_t number = 0; number < steps * 16; ++number) {
    const Ids sequence = RawOf(RowOf(batches, number / 16, number % 16));
    for (size_t p = 0; p < parts_.size(); ++p)
      if (stored[p].contains(sequence)) drawn[p].push_back(sequence);
  }
  const std::vector<PartUse> use = batches.Use(steps);
  for (size_t p = 0; p < parts_.size(); ++p) {
    EXPECT_EQ(use[p].name, parts_[p].name);
    EXPECT_DOUBLE_EQ(use[p].rate, parts_[p].rate / 10);
    EXPECT_EQ(use[p].rows, static_cast<int64_t>(drawn[p].size()));
    EXPECT_NEAR(static_cast<double>(use[p].rows), static_cast<double>(steps * 16) * use[p].rate, 1);
    EXPECT_GT(use[p].epochs(), 2) << "the test must see a text come again";
    const auto epoch = static_cast<std::ptrdiff_t>(use[p].sequences);
    for (int e = 0; e < 2; ++e)
      EXPECT_EQ(std::multiset<Ids>(drawn[p].begin() + e * epoch, drawn[p].begin() + (e + 1) * epoch), stored[p])
          << use[p].name << ' ' << e;
  }
}

TEST_F(MixtureTest, EveryWindowHasTheShares) {
  const PretrainBatches batches = Make(5, 16);
  for (int64_t first : {0, 1, 17, 1000})
    for (int64_t steps : {1, 3, 50}) {
      const auto before = batches.Use(first), after = batches.Use(first + steps);
      for (size_t p = 0; p < parts_.size(); ++p)
        EXPECT_NEAR(static_cast<double>(after[p].rows - before[p].rows),
                    static_cast<double>(steps * 16) * before[p].rate, 2)
            << p;
    }
}

TEST_F(MixtureTest, ValidationIsSharedOutAsFarAsEveryPartReaches) {
  const ValidationBatches some = MakeValidation(20), all = MakeValidation(0);
  std::vector<int64_t> counts(parts_.size()), most;
  const int64_t raw = some.lengths().raw;
  for (const TextPart& part : parts_) most.push_back(part.valid.tokens() / raw);
  for (int64_t i = 0; i < some.size(); ++i) {
    EXPECT_EQ(RowOf(some, i), RowOf(all, i)) << "a smaller set is a prefix of the larger";
    EXPECT_EQ(some.PartOf(i), all.PartOf(i));
    ++counts[some.PartOf(i)];
  }
  EXPECT_EQ(counts, (std::vector<int64_t>{12, 2, 6}));
  counts.assign(parts_.size(), 0);
  for (int64_t i = 0; i < all.size(); ++i) {
    const Ids sequence = RawOf(RowOf(all, i));
    EXPECT_TRUE(SequencesOf(parts_[all.PartOf(i)].valid, Join::kEndMark, raw).contains(sequence));
    ++counts[all.PartOf(i)];
  }
  bool one_is_used_up = false;
  for (size_t p = 0; p < parts_.size(); ++p) {
    EXPECT_LE(counts[p], most[p]);
    one_is_used_up |= counts[p] == most[p];
  }
  EXPECT_TRUE(one_is_used_up);
}

TEST_F(MixtureTest, WrongRatesAndShortPartsAreNamed) {
  const auto message = [&] {
    return PretrainBatches::Create(parts_, TokenFixture::Make(kSpans), Join::kEndMark, 1, 0).error().message;
  };
  for (double rate : {0.0, -1.0, std::nan(""), HUGE_VAL}) {
    parts_[1].rate = rate;
    EXPECT_THAT(message(), HasSubstr("rate of text part 'small'"));
  }
  parts_[1].rate = 1;
  parts_[2].train = WriteTokens("short", {{5, 6, 7}});
  EXPECT_THAT(message(), HasSubstr("training text of 'third' has 4 tokens"));
  parts_.clear();
  EXPECT_THAT(message(), HasSubstr("at least one part"));
}

TEST_F(PretrainBatchesTest, ValidationIsTheSameForEveryRunAndSpread) {
  const ValidationBatches all = MakeValidation(0), some = MakeValidation(5);
  const int64_t raw = all.lengths().raw;
  EXPECT_EQ(all.size(), text_.tokens() / raw);
  EXPECT_EQ(some.size(), 5);
  std::multiset<Ids> seen;
  for (int64_t i = 0; i < all.size(); ++i) {
    seen.insert(RawOf(RowOf(all, i)));
    if (i < some.size()) {
      EXPECT_EQ(RowOf(all, i), RowOf(some, i)) << "a smaller set is a prefix of the larger";
    }
  }
  EXPECT_EQ(seen, SequencesOf(text_, Join::kEndMark, raw));
  EXPECT_THROW(RowOf(some, 5), std::out_of_range);
  EXPECT_EQ(some.Sha256(), MakeValidation(5).Sha256());
  EXPECT_NE(some.Sha256(), all.Sha256());
  EXPECT_NE(some.Sha256(), MakeValidation(5, kPrefix).Sha256());
}

TEST_F(PretrainBatchesTest, MarksAreOfTheTextThatInputsDoNotShow) {
  const ValidationBatches spans = MakeValidation(3), bert = MakeValidation(3, kBert);
  for (const auto& [batches, share] : {std::pair(&spans, 1.0), std::pair(&bert, 0.15)}) {
    const arch::ObjectiveLengths n = batches->lengths();
    Row inputs(3 * n.inputs), targets(3 * n.targets);
    batches->Fill(0, 3, n.inputs, n.targets, inputs.data(), targets.data());
    std::vector<uint8_t> marks(targets.size());
    batches->MarkText(0, 3, n.targets, targets.data(), marks.data());
    const auto is_text = [](int64_t id) { return id >= kFirstPiece && id < kPieces; };
    const double text = static_cast<double>(std::ranges::count_if(targets, is_text));
    EXPECT_NEAR(static_cast<double>(std::ranges::count(marks, 1)), share * text, share < 1 ? 3 : 0);
    for (size_t i = 0; i < targets.size(); ++i)
      if (marks[i]) {
        EXPECT_TRUE(is_text(targets[i]));
      }
  }
}

TEST_F(PretrainBatchesTest, TextShorterThanOneSequenceIsADataError) {
  const arch::ObjectiveSettings long_input{.input_length = 100'000, .mean_span_length = 1000};
  const auto train = PretrainBatches::Create(parts_, TokenFixture::Make(long_input), Join::kEndMark, 1, 0);
  ASSERT_FALSE(train.ok());
  EXPECT_EQ(train.error().code, common::ErrorCode::kDataLoss);
  EXPECT_THAT(train.error().message, HasSubstr("the training text has 13856 tokens, fewer than one sequence"));
  const auto valid = ValidationBatches::Create(parts_, TokenFixture::Make(long_input), Join::kEndMark, 0);
  EXPECT_THAT(valid.error().message, HasSubstr("raise validation_fraction"));
  EXPECT_TRUE(PretrainBatches::Create(parts_, TokenFixture::Make(long_input), Join::kNone, 1, 0).ok())
      << "documents by themselves are as short as they come";
  EXPECT_EQ(PretrainBatches::Create(parts_, TokenFixture::Make(kSpans), Join::kEndMark, 0, 0).error().code,
            common::ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace allometry::trainer
