#include "coordinator/grid/sweep_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace allometry::coordinator {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kGood[] = R"(name: study
data: gcide
architectures: [transformer, {name: glu, options: {activation: gelu}}]
sizes: [tiny, {name: own, layers: 2, d_model: 16, d_ff: 64, heads: 2, d_kv: 8}]
seeds: [0, 1]
tags: {group: a}
pretraining:
  steps: 2e3
  optimizer: adafactor
finetuning:
  tasks: [wordnet_pos]
  dropout: 0.2
)";

TEST(SweepFile, ReadsEveryForm) {
  const auto spec = ParseSweep(kGood, "s.yaml");
  ASSERT_TRUE(spec.ok()) << spec.error().message;
  EXPECT_EQ(spec->name(), "study");
  EXPECT_EQ(spec->data().corpus(), "gcide");  // a scalar stands for the first field
  EXPECT_EQ(spec->architectures(0).name(), "transformer");
  EXPECT_EQ(spec->architectures(1).options().fields().at("activation").string_value(), "gelu");
  EXPECT_EQ(spec->sizes(1).d_model(), 16);
  EXPECT_EQ(spec->pretraining().steps(), 2000);
  EXPECT_EQ(spec->pretraining().optimizer().name(), "adafactor");
  EXPECT_EQ(spec->tags().at("group"), "a");
  EXPECT_DOUBLE_EQ(spec->finetuning().dropout(), 0.2);
  EXPECT_FALSE(spec->pretraining().has_dropout());
}

TEST(SweepFile, ReadsBuiltDataSets) {
  std::string text = kGood;
  text.replace(text.find("data: gcide"), 11, "data: {mixture: [{path: a/web, rate: 2.5}, b/books/]}");
  const auto spec = ParseSweep(text, "s.yaml");
  ASSERT_TRUE(spec.ok()) << spec.error().message;
  EXPECT_EQ(spec->data().mixture(0).rate(), 2.5);
  EXPECT_EQ(spec->data().mixture(1).path(), "b/books/");
  std::string rows = kGood;
  rows.replace(rows.find("d_kv: 8"), 7, "d_kv: 8, vocabulary: 300");
  rows.replace(rows.find("data: gcide"), 11, "data: {path: d}");
  EXPECT_TRUE(ParseSweep(rows, "s.yaml").ok()) << "the tokenizer's vocabulary is not known here";
}

// `find` in the good file is replaced by `replacement`; the answer must begin with the place and hold the words.
struct Mistake {
  const char* name;
  const char* find;
  const char* replacement;
  int line;
  std::vector<const char*> words;
};

class SweepFileMistakes : public ::testing::TestWithParam<Mistake> {};

TEST_P(SweepFileMistakes, AreAnsweredWithPlaceAndRemedy) {
  const Mistake& mistake = GetParam();
  std::string text = kGood;
  const size_t at = text.find(mistake.find);
  ASSERT_NE(at, std::string::npos);
  text.replace(at, std::string(mistake.find).size(), mistake.replacement);
  const auto spec = ParseSweep(text, "s.yaml");
  ASSERT_FALSE(spec.ok()) << text;
  EXPECT_EQ(spec.error().code, common::ErrorCode::kInvalidArgument);
  EXPECT_THAT(spec.error().message, StartsWith("s.yaml:" + std::to_string(mistake.line) + ": "));
  for (const char* word : mistake.words) EXPECT_THAT(spec.error().message, HasSubstr(word));
}

INSTANTIATE_TEST_SUITE_P(
    Table, SweepFileMistakes,
    ::testing::Values(
        Mistake{"DevicesOutOfRange",
                "{name: own, layers: 2",
                "{name: own, devices: 1025, layers: 2",
                4,
                {"sizes[1].devices is '1025'", "from 1 to 1024, or auto"}},
        Mistake{
            "DevicesThatAreNoNumber", "name: study", "name: study\ndevices: many", 2, {"devices is 'many'", "auto"}},
        Mistake{
            "NoDevices", "{name: own, layers: 2", "{name: own, devices: 0, layers: 2", 4, {"sizes[1].devices is '0'"}},
        Mistake{"MoreDevicesThanSequences",
                "{name: own, layers: 2",
                "{name: own, devices: 129, layers: 2",
                4,
                {"sizes[1].devices is 129", "a batch of pretraining has 128 sequences"}},
        Mistake{"MoreDevicesThanSequencesOfFineTuning",
                "dropout: 0.2",
                "dropout: 0.2\n  batch_sequences: 4\ndevices: 8",
                14,
                {"devices is 8", "a batch of finetuning has 4 sequences"}},
        Mistake{"SlotsThatAreNoPowerOfTwo",
                "name: study",
                "name: study\nslots_per_gpu: 3",
                2,
                {"slots_per_gpu is '3'", "1, 2, 4, 8, 16 or auto"}},
        Mistake{"SharesOfSeveralDevices",
                "{name: own, layers: 2",
                "{name: own, devices: 2, slots_per_gpu: 4, layers: 2",
                4,
                {"sizes[1].slots_per_gpu is 4", "sizes[1].devices is 2", "to itself"}},
        Mistake{"UnknownKey", "seeds:", "sseds:", 5, {"unknown key 'sseds'", "did you mean 'seeds'", "architectures"}},
        Mistake{"UnknownNestedKey", "  optimizer:", "  optimiser:", 9, {"in pretraining", "'optimizer'"}},
        Mistake{"DuplicateKey", "tags:", "seeds:", 6, {"duplicate key 'seeds'"}},
        Mistake{"DuplicateOption", "{activation: gelu}", "{activation: gelu, activation: relu}", 3, {"duplicate"}},
        Mistake{"DuplicateTag", "{group: a}", "{group: a, group: b}", 6, {"duplicate key 'group'"}},
        Mistake{"TextForInteger", "steps: 2e3", "steps: many", 8, {"'many'", "must be an integer"}},
        Mistake{"FractionForInteger", "steps: 2e3", "steps: 2.5", 8, {"'2.5'", "must be an integer"}},
        Mistake{"QuotedInteger", "steps: 2e3", "steps: '2000'", 8, {"must be an integer"}},
        Mistake{"TooLongInteger", "steps: 2e3", "steps: 99999999999999999999", 8, {"must be an integer"}},
        Mistake{"TextForNumber", "dropout: 0.2", "dropout: little", 12, {"'little'", "must be a number"}},
        Mistake{"NotFinite", "dropout: 0.2", "dropout: nan", 12, {"must be a number"}},
        Mistake{"NegativeSeed", "[0, 1]", "[0, -1]", 5, {"seeds[1]", "not negative"}},
        Mistake{"ScalarForList", "[0, 1]", "3", 5, {"takes a list, as in [3]"}},
        Mistake{"ListForMessage", "data: gcide", "data: [gcide]", 2, {"takes a map of corpus, text"}},
        Mistake{"MapForScalar", "name: study", "name: {a: b}", 1, {"a map", "must be a text"}},
        Mistake{"NoValue", "seeds: [0, 1]", "seeds:", 5, {"has no value"}},
        Mistake{"EmptyList", "[0, 1]", "[]", 5, {"empty list"}},
        Mistake{"OutOfRange", "dropout: 0.2", "dropout: 1.5", 12, {"allowed: from 0 to 0.99"}},
        Mistake{"ZeroSteps", "steps: 2e3", "steps: 0", 8, {"from 1"}},
        Mistake{"UnknownCorpus", "data: gcide", "data: gcid", 2, {"allowed: gcide", "did you mean 'gcide'"}},
        Mistake{"UnknownOptimizer", "optimizer: adafactor", "optimizer: adamv", 9, {"adafactor adamw", "'adamw'"}},
        Mistake{"UnknownArchitecture", "[transformer,", "[transfomer,", 3, {"did you mean 'transformer'"}},
        Mistake{"UnknownOption", "{activation:", "{activatoin:", 3, {"did you mean 'activation'"}},
        Mistake{"OptionOutOfChoices", "gelu}", "tanh}", 3, {"sigmoid gelu silu relu"}},
        Mistake{"UnknownSize", "[tiny,", "[tinny,", 4, {"did you mean 'tiny'", "micro"}},
        Mistake{"IncompleteSize", "d_ff: 64, ", "", 4, {"'own'", "missing: d_ff"}},
        Mistake{"UnknownTask", "wordnet_pos", "wordnet_po", 11, {"did you mean 'wordnet_pos'"}},
        Mistake{"TwoBudgets", "steps: 2e3", "tokens: 1e6\n  steps: 2e3", 7, {"only one of steps, tokens"}},
        Mistake{"NoBudget", "steps: 2e3", "dropout: 0", 7, {"needs one of steps, tokens"}},
        Mistake{"BothSources", "data: gcide", "data: {corpus: gcide, text: ['*.txt']}", 2, {"only one of"}},
        Mistake{"PathAndText", "data: gcide", "data: {path: d, text: ['*.txt']}", 2, {"only one of", "path"}},
        Mistake{"NoSource", "data: gcide", "data: {format: jsonl}", 2, {"needs one of corpus", "mixture"}},
        Mistake{"UnknownFormat", "data: gcide", "data: {text: [a], format: json}", 2, {"text jsonl wikipedia tsv"}},
        Mistake{
            "FieldOfText", "data: gcide", "data: {text: [a], field: f}", 2, {"data.field is for text of format jsonl"}},
        Mistake{"ColumnOfJsonl",
                "data: gcide",
                "data: {text: [a], format: jsonl, column: c}",
                2,
                {"data.column is for text of format tsv"}},
        Mistake{"DocumentOfWikipedia",
                "data: gcide",
                "data: {text: [a], format: wikipedia, document: line}",
                2,
                {"data.document is for text of format text"}},
        Mistake{"ValidOfCorpus", "data: gcide", "data: {corpus: gcide, valid: [a]}", 2, {"data.valid is for text"}},
        Mistake{"ValidAndFraction",
                "data: gcide",
                "data: {text: [a], valid: [b], validation_fraction: 0.1}",
                2,
                {"no place beside data.valid"}},
        Mistake{"FractionOfBuilt",
                "data: gcide",
                "data: {path: d, validation_fraction: 0.1}",
                2,
                {"a built data set is split already"}},
        Mistake{"ModelOfBuilt", "data: gcide", "data: {path: d}\ntokenizer: {model: m}", 3, {"has its own tokenizer"}},
        Mistake{"RateOfNothing", "data: gcide", "data: {mixture: [{path: d, rate: 0}]}", 2, {"more than 0"}},
        Mistake{"SamePart", "data: gcide", "data: {mixture: [a/d, b/d]}", 2, {"two parts are called 'd'"}},
        Mistake{"PartWithoutPath", "data: gcide", "data: {mixture: [{rate: 2}]}", 2, {"mixture[0] has no path"}},
        Mistake{"RepeatedSeed", "[0, 1]", "[1, 1]", 5, {"seeds names 1 twice"}},
        Mistake{"SameLabel", "{name: glu", "{name: transformer, label: transformer", 3, {}},
        Mistake{"BadName", "name: study", "name: my study", 1, {"letters, digits"}},
        Mistake{"NoName", "name: study", "description: x", 1, {"name is missing"}},
        Mistake{"ImpossibleShape",
                "{name: glu, options: {activation: gelu}}",
                "{name: lconv, options: {heads: 5}}",
                4,
                {"lconv cannot take size"}},
        Mistake{"FewerRowsThanPieces",
                "d_kv: 8",
                "d_kv: 8, vocabulary: 300",
                4,
                {"sizes[1].vocabulary is 300", "tokenizer's vocabulary is 8192"}},
        Mistake{
            "FewerRowsOnAnAxis", "seeds: [0, 1]", "axes: {vocabulary: [9000, 300]}", 5, {"axes.vocabulary[1] is 300"}},
        Mistake{"SizeOptionsOfBuiltin", "d_kv: 8", "d_kv: 8, options: {a: 1}", 4, {"trainers of one's own"}},
        Mistake{"WeightDecayOfAdafactor", "optimizer: adafactor", "optimizer: {weight_decay: 0.1}", 9, {"adamw only"}},
        Mistake{"TooManySpans", "steps: 2e3", "steps: 2e3\n  input_length: 8192", 7, {"sentinels"}},
        Mistake{"UnknownObjective",
                "steps: 2e3",
                "steps: 2e3\n  objective: prefix",
                9,
                {"span_corruption prefix_lm bert", "did you mean 'prefix_lm'"}},
        Mistake{"NumberOfAnotherObjective",
                "steps: 2e3",
                "steps: 2e3\n  objective: bert\n  mean_span_length: 3",
                10,
                {"mean_span_length is for span_corruption only"}},
        Mistake{"TargetsLongerThanAnyTarget",
                "steps: 2e3",
                "steps: 2e3\n  objective: prefix_lm\n  target_length: 513",
                7,
                {"target_length is 513"}},
        Mistake{"UnknownJoin", "steps: 2e3", "steps: 2e3\n  join: eos", 9, {"end_mark none"}},
        Mistake{"NotYaml", "[0, 1]", "[0, 1", 6, {"not valid YAML"}}),
    [](const auto& info) { return info.param.name; });

TEST(SweepFile, ReportsEveryMistakeInTheOrderOfTheFile) {
  const auto spec = ParseSweep("nme: a\nprecision: fp16\npretraining: {steps: x, dropout: 2}\n", "s.yaml");
  ASSERT_FALSE(spec.ok());
  EXPECT_THAT(spec.error().message,
              AllOf(StartsWith("s.yaml:1: "), HasSubstr("\ns.yaml:2: precision is 'fp16'"),
                    HasSubstr("\ns.yaml:3: pretraining.steps"), HasSubstr("\ns.yaml:3: pretraining.dropout")));
}

TEST(SweepFile, RefusesWhatIsNoMap) {
  EXPECT_THAT(ParseSweep("", "s").error().message, HasSubstr("s:1: the file is empty"));
  EXPECT_THAT(ParseSweep("- a\n", "s").error().message, HasSubstr("not a map"));
  EXPECT_THAT(ParseSweep("a: 1\n---\nb: 2\n", "s").error().message, HasSubstr("several YAML documents"));
}

TEST(SweepFile, EndsOnAnchorsThatGrowWithoutEnd) {
  const auto cycle = ParseSweep("architectures: [{name: glu, options: &a {x: [*a]}}]\n", "s");
  EXPECT_THAT(cycle.error().message, HasSubstr("nested more than"));
  std::string bomb = "description: &a0 x\nname: b\narchitectures:\n  - name: glu\n    options:\n      v0: &b0 [1, 1]\n";
  for (int i = 1; i < 40; ++i) {
    const std::string n = std::to_string(i), m = std::to_string(i - 1);
    bomb += "      v" + n + ": &b" + n + " [*b" + m + ", *b" + m + "]\n";
  }
  EXPECT_THAT(ParseSweep(bomb, "s").error().message, HasSubstr("million values"));
}

TEST(SweepFile, NamesTheFileThatIsNotThere) {
  const auto spec = ReadSweepFile("/nonexistent/s.yaml");
  ASSERT_FALSE(spec.ok());
  EXPECT_THAT(spec.error().message, HasSubstr("/nonexistent/s.yaml"));
}

TEST(SweepFile, EveryExampleIsValid) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(ALLOMETRY_SOURCE_DIR "/examples")) {
    if (entry.path().extension() != ".yaml") continue;
    const auto spec = ReadSweepFile(entry.path());
    EXPECT_TRUE(spec.ok()) << (spec.ok() ? "" : spec.error().message);
    ++files;
  }
  EXPECT_GE(files, 3);
}

}  // namespace
}  // namespace allometry::coordinator
