#include "worker/trainer/data/data_tools.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "common/version.h"
#include "worker/trainer/data/data_build.h"
#include "worker/trainer/data/data_options.h"
#include "worker/trainer/data/dataset.h"
#include "worker/trainer/data/pretrain_batches.h"

namespace allometry::trainer {
namespace {

constexpr int kUsage = 2;
constexpr char kHelp[] = R"(allo-trainer data: data sets from raw text

  allo-trainer data build --in GLOB... --out DIR
      a data set: documents without exact duplicates, split, tokenised, in shards
    --format auto|text|jsonl|wikipedia|tsv   what the files are (auto: by content)
    --field F              jsonl: the member that is the text (text)
    --column C             tsv: a name of the first line (text), or a number
                           from 1, and the files have no header
    --document paragraph|line|file           text: what one document is
    --valid GLOB...        files of the validation part; otherwise
    --validation-fraction X                  share of documents (0.01)
    --tokenizer MODEL      a SentencePiece model; otherwise one is trained
    --vocabulary N         rows of the embedding: pieces + 100 (8192; 32128)
    --threads N            (all processors)
    --shard-tokens N       of one file (100000000)
    --skip-bad-rows        leaves broken rows out and counts them
    --seed N               of the tokenizer's sample (0)
  allo-trainer data tokenizer --in GLOB... --out MODEL --vocabulary N
      a SentencePiece unigram model in T5's layout
    --format, --field, --column, --document, --skip-bad-rows, --seed as above
    --sample-sentences N   (20000, or 4 N if that is more)
  allo-trainer data show DIR [--input-length N] [--output text|json]
      sizes, a sample of the text, one span-corrupted example as text, one
      example of each task (N: tokens of an input after corruption, 128)

A pattern that matches a folder stands for all files in it. Files may be packed
by gzip, xz or Zstandard. A build that was stopped goes on when the same command
is given again.
)";

std::string Shortened(std::string text) {
  constexpr size_t kMost = 400;
  if (text.size() <= kMost) return text;
  size_t cut = kMost;
  while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
  return text.substr(0, cut) + " ...";
}

void PrintSizes(const Dataset& data) {
  const common::Json& info = data.info();
  const auto count = [&](const char* part, const char* key) {
    return static_cast<long long>(info.value(part, common::Json::object()).value(key, int64_t{0}));
  };
  std::printf("folder       %s\n", data.folder().c_str());
  std::printf("tokenizer    %lld pieces, 100 sentinels, vocabulary %lld\n",
              static_cast<long long>(data.tokenizer().pieces()), static_cast<long long>(data.tokenizer().vocabulary()));
  if (data.parts().empty()) return;
  std::printf(
      "text         %lld documents, %lld words; %lld exact duplicates dropped, %lld lines not UTF-8 (replaced)\n",
      count("text", "documents"), count("text", "words"), count("text", "duplicates"), count("text", "replaced_lines"));
  if (const long long same = count("text", "duplicates_of_validation"))
    std::printf("             %lld of the duplicates were of validation documents\n", same);
  if (const long long bad = count("text", "bad_rows") + count("text", "damaged_files"))
    std::printf("             %lld bad rows and damaged files left out\n", bad);
  if (const long long empty = count("text", "empty_rows")) std::printf("             %lld rows without text\n", empty);
  for (const TextPart& part : data.parts())
    if (data.parts().size() > 1)
      std::printf("part         %s: rate %g, %lld training tokens\n", part.name.c_str(), part.rate,
                  static_cast<long long>(part.train.tokens()));
  for (const char* part : {"train", "valid"})
    std::printf("%-12s %lld documents, %lld tokens, %lld of them unknown\n", part, count(part, "documents"),
                count(part, "tokens"), count(part, "unknown_tokens"));
}

void PrintText(const Dataset& data) {
  const int64_t middle = data.train().documents() / 2;
  std::printf("\nA training document (number %lld):\n  %s\n", static_cast<long long>(middle),
              Shortened(data.tokenizer().Decode(data.train().Document(middle))).c_str());
}

// The row as text, end marks shown, padding left out.
std::string DecodeRow(const Tokenizer& tokenizer, const std::vector<int64_t>& row) {
  std::string text;
  std::vector<int32_t> part;
  for (int64_t id : row) {
    part.push_back(static_cast<int32_t>(id));
    if (id != kEos) continue;
    text += (text.empty() ? "" : " ") + tokenizer.Decode(part) + " </s>";
    part.clear();
  }
  return text;
}

// One sequence of the text, corrupted.
struct CorruptedExample {
  arch::ObjectiveLengths lengths;
  int64_t sequences = 0;  // of an epoch
  std::string inputs, targets;
};

common::Result<CorruptedExample> Corrupted(const Dataset& data, int64_t input_length) {
  ALLO_ASSIGN_OR_RETURN(const auto objective, MakeObjective({.input_length = input_length}, data.tokenizer().pieces()));
  ALLO_ASSIGN_OR_RETURN(const PretrainBatches batches,
                        PretrainBatches::Create(data.parts(), objective, Join::kEndMark, 1, 0));
  const arch::ObjectiveLengths n = batches.lengths();
  std::vector<int64_t> inputs(static_cast<size_t>(n.inputs)), targets(static_cast<size_t>(n.targets));
  batches.Fill(0, 0, 1, n.inputs, n.targets, inputs.data(), targets.data());
  return CorruptedExample{n, batches.Use(0)[0].sequences, DecodeRow(data.tokenizer(), inputs),
                          DecodeRow(data.tokenizer(), targets)};
}

common::Status PrintCorrupted(const Dataset& data, int64_t input_length) {
  ALLO_ASSIGN_OR_RETURN(const CorruptedExample example, Corrupted(data, input_length));
  std::printf("\nSpan corruption of %lld tokens into %lld inputs and %lld targets; %lld sequences in an epoch:\n",
              static_cast<long long>(example.lengths.raw), static_cast<long long>(example.lengths.inputs),
              static_cast<long long>(example.lengths.targets), static_cast<long long>(example.sequences));
  std::printf("  inputs:  %s\n  targets: %s\n", example.inputs.c_str(), example.targets.c_str());
  return common::Ok();
}

common::Status PrintTask(const Dataset& data, const std::string& name) {
  ALLO_ASSIGN_OR_RETURN(const TaskData task, data.OpenTask(name));
  std::printf("\nTask %s: %lld training and %lld validation examples\n", name.c_str(),
              static_cast<long long>(task.train().size()), static_cast<long long>(task.valid().size()));
  std::printf("  input:  %s\n  target: %s\n", Shortened(data.tokenizer().Decode(task.train().Input(0))).c_str(),
              Shortened(data.tokenizer().Decode(task.Target(0))).c_str());
  return common::Ok();
}

common::Status ShowText(const Dataset& data, int64_t input_length) {
  PrintSizes(data);
  if (!data.parts().empty()) {
    PrintText(data);
    ALLO_RETURN_IF_ERROR(PrintCorrupted(data, input_length));
  }
  for (const std::string& name : data.TaskNames()) ALLO_RETURN_IF_ERROR(PrintTask(data, name));
  return common::Ok();
}

common::Status AddSamples(const Dataset& data, int64_t input_length, common::Json* to) {
  common::Json& json = *to;
  ALLO_ASSIGN_OR_RETURN(const CorruptedExample example, Corrupted(data, input_length));
  json["sample"] = data.tokenizer().Decode(data.train().Document(data.train().documents() / 2));
  json["corrupted"] = {{"raw_tokens", example.lengths.raw},
                       {"input_tokens", example.lengths.inputs},
                       {"target_tokens", example.lengths.targets},
                       {"sequences", example.sequences},
                       {"inputs", example.inputs},
                       {"targets", example.targets}};
  return common::Ok();
}

// data.json, with a sample of the text and a corrupted example if there is text.
common::Status ShowJson(const Dataset& data, int64_t input_length) {
  common::Json json = data.info();
  json["folder"] = data.folder().string();
  if (!data.parts().empty()) ALLO_RETURN_IF_ERROR(AddSamples(data, input_length, &json));
  std::printf("%s\n", json.dump(2, ' ', false, common::Json::error_handler_t::replace).c_str());
  return common::Ok();
}

common::Status Show(const std::vector<std::string>& words) {
  using Takes = DataOptions::Takes;
  ALLO_ASSIGN_OR_RETURN(const DataOptions options,
                        DataOptions::Parse(words, {{"--input-length", Takes::kOne}, {"--output", Takes::kOne}}, 1));
  ALLO_ASSIGN_OR_RETURN(const int64_t input_length, options.Integer("--input-length", 128, 1, 1 << 20));
  const std::string output = options.Text("--output", "text");
  if (output != "text" && output != "json")
    return common::InvalidArgument("--output is '" + output + "'; it takes text or json");
  ALLO_ASSIGN_OR_RETURN(const Dataset data, Dataset::Open(options.position(0)));
  return output == "json" ? ShowJson(data, input_length) : ShowText(data, input_length);
}

common::Status Build(const std::vector<std::string>& words) {
  ALLO_ASSIGN_OR_RETURN(const std::filesystem::path folder, BuildDataSet(words));
  ALLO_ASSIGN_OR_RETURN(const Dataset data, Dataset::Open(folder));
  PrintSizes(data);
  return common::Ok();
}

common::Status Train(const std::vector<std::string>& words) {
  ALLO_ASSIGN_OR_RETURN(const std::filesystem::path file, BuildTokenizer(words));
  std::printf("%s\n", file.c_str());
  return common::Ok();
}

int Report(const common::Status& status) {
  if (status) return 0;
  std::fprintf(stderr, "allo-trainer data: %s\n", status.error().message.c_str());
  return common::ExitCodeOf(status.error().code);
}

}  // namespace

int DataMain(int argc, char** argv) {
  const std::string_view verb = argc > 1 ? argv[1] : "";
  const std::vector<std::string> words(argv + std::min(argc, 2), argv + argc);
  const bool help = std::ranges::any_of(words, [](const std::string& w) { return w == "--help" || w == "-h"; });
  if (verb == "--help" || verb == "-h" || help) return std::fputs(kHelp, stdout) < 0;
  if (verb == "build") return Report(Build(words));
  if (verb == "tokenizer") return Report(Train(words));
  if (verb == "show") return Report(Show(words));
  std::fputs(kHelp, stderr);
  return kUsage;
}

}  // namespace allometry::trainer
