#include "worker/trainer/data/data_tools.h"

#include <cstdio>
#include <string>
#include <string_view>

#include "common/version.h"
#include "worker/trainer/data/dataset.h"
#include "worker/trainer/data/pretrain_batches.h"

namespace allometry::trainer {
namespace {

constexpr int kUsage = 2;
constexpr char kHelp[] = R"(allo-trainer data: tools for prepared data sets

  allo-trainer data show DIR [--input-length N]
      sizes, a sample of the text, one span-corrupted example as text, one example of each task
      (N: tokens of an input after corruption, default 128)
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
  std::printf(
      "text         %lld documents, %lld words; %lld exact duplicates dropped, %lld lines not UTF-8 (replaced)\n",
      count("text", "documents"), count("text", "words"), count("text", "duplicates"), count("text", "replaced_lines"));
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

common::Status PrintCorrupted(const Dataset& data, int64_t input_length) {
  ALLO_ASSIGN_OR_RETURN(const auto objective, MakeObjective({.input_length = input_length}, data.tokenizer().pieces()));
  ALLO_ASSIGN_OR_RETURN(const PretrainBatches batches,
                        PretrainBatches::Create(data.parts(), objective, Join::kEndMark, 1, 0));
  const arch::ObjectiveLengths n = batches.lengths();
  std::vector<int64_t> inputs(static_cast<size_t>(n.inputs)), targets(static_cast<size_t>(n.targets));
  batches.Fill(0, 0, 1, n.inputs, n.targets, inputs.data(), targets.data());
  std::printf("\nSpan corruption of %lld tokens into %lld inputs and %lld targets; %lld sequences in an epoch:\n",
              static_cast<long long>(n.raw), static_cast<long long>(n.inputs), static_cast<long long>(n.targets),
              static_cast<long long>(batches.Use(0)[0].sequences));
  std::printf("  inputs:  %s\n  targets: %s\n", DecodeRow(data.tokenizer(), inputs).c_str(),
              DecodeRow(data.tokenizer(), targets).c_str());
  return common::Ok();
}

common::Status PrintTask(const Dataset& data, const std::string& name) {
  ALLO_ASSIGN_OR_RETURN(const TaskData task, data.OpenTask(name));
  std::printf("\nTask %s: %lld training and %lld validation examples\n", name.c_str(),
              static_cast<long long>(task.train().size()), static_cast<long long>(task.valid().size()));
  std::printf("  input:  %s\n  target: %s\n", Shortened(data.tokenizer().Decode(task.train().Input(0))).c_str(),
              task.labels()[static_cast<size_t>(task.train().Label(0))].c_str());
  return common::Ok();
}

common::Status Show(const char* folder, int64_t input_length) {
  ALLO_ASSIGN_OR_RETURN(const Dataset data, Dataset::Open(folder));
  PrintSizes(data);
  PrintText(data);
  ALLO_RETURN_IF_ERROR(PrintCorrupted(data, input_length));
  for (const std::string& name : data.TaskNames()) ALLO_RETURN_IF_ERROR(PrintTask(data, name));
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
  if (verb == "--help" || verb == "-h") return std::fputs(kHelp, stdout) < 0;
  if (verb == "show" && argc == 3) return Report(Show(argv[2], 128));
  if (verb == "show" && argc == 5 && std::string_view(argv[3]) == "--input-length")
    return Report(Show(argv[2], std::strtoll(argv[4], nullptr, 10)));
  std::fputs(kHelp, stderr);
  return kUsage;
}

}  // namespace allometry::trainer
