#include "worker/trainer/exchange/checkpoint_tools.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "worker/trainer/data/format.h"
#include "worker/trainer/engine/model_folder.h"
#include "worker/trainer/exchange/huggingface_folder.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using common::Json;
using common::Result;

constexpr char kHelp[] = R"(allo-trainer checkpoint: tools for trained models

  allo-trainer checkpoint export DIR --to huggingface -o OUT [--tokenizer PATH]
      a folder that transformers' from_pretrained reads (PATH: a SentencePiece model or a folder with spiece.model)
  allo-trainer checkpoint import DIR -o OUT
      the reverse: a folder that a fine-tuning takes as its parent
  allo-trainer checkpoint show DIR
      what a folder holds

DIR of export is a run's output 'model' or its checkpoint/step-N; each prints what was written as one JSON object.
)";

// The words behind the verb.
struct Arguments {
  std::vector<std::string> positions;
  std::map<std::string, std::string> options;

  std::string Option(const std::string& name) const { return options.contains(name) ? options.at(name) : ""; }
};

// Fails where an option is unknown or has no value.
bool Parse(const std::vector<std::string>& words, const std::vector<std::string>& known, Arguments* arguments) {
  for (size_t i = 0; i < words.size(); ++i) {
    if (!words[i].starts_with('-')) {
      arguments->positions.push_back(words[i]);
    } else if (std::ranges::find(known, words[i]) != known.end() && i + 1 < words.size()) {
      arguments->options[words[i]] = words[i + 1];
      ++i;
    } else {
      return false;
    }
  }
  return arguments->positions.size() == 1;
}

Json Description(const fs::path& folder, const char* format, const ModelConfig& model) {
  const arch::ParameterCount parameters =
      (*arch::FindArchitecture(model.architecture))->CountParameters(model.shape, model.options);
  return {{"folder", folder.string()},
          {"format", format},
          {"architecture", model.architecture},
          {"shape", ShapeToJson(model.shape)},
          {"options", model.options},
          {"parameters", parameters.total},
          {"non_embedding_parameters", parameters.non_embedding},
          {"active_parameters", parameters.active},
          {"step", nullptr},
          {"precision", nullptr},
          {"tokenizer", fs::exists(folder / kTokenizerFile)}};
}

Result<Json> Describe(const fs::path& folder) {
  if (fs::exists(folder / kConfigJson)) {
    ALLO_ASSIGN_OR_RETURN(const ModelConfig model, ReadHuggingFaceModel(folder));
    return Description(folder, "huggingface", model);
  }
  ALLO_ASSIGN_OR_RETURN(const TrainedModel trained, ReadTrainedModel(folder));
  Json description = Description(folder, trained.step ? "checkpoint" : "model", trained.model);
  if (trained.step) description["step"] = *trained.step;
  if (!trained.precision.empty()) description["precision"] = trained.precision;
  return description;
}

Result<Json> Export(const Arguments& arguments) {
  if (arguments.Option("--to") != "huggingface")
    return common::InvalidArgument("--to is '" + arguments.Option("--to") + "'; it takes huggingface");
  const std::string out = arguments.Option("-o");
  ALLO_RETURN_IF_ERROR(ExportToHuggingFace(arguments.positions[0], arguments.Option("--tokenizer"), out));
  return Describe(out);
}

Result<Json> Import(const Arguments& arguments) {
  ALLO_RETURN_IF_ERROR(ImportFromHuggingFace(arguments.positions[0], arguments.Option("-o")));
  return Describe(arguments.Option("-o"));
}

int Report(const Result<Json>& result) {
  if (result) return std::puts(result->dump(2).c_str()) < 0;
  std::fprintf(stderr, "allo-trainer checkpoint: %s\n", result.error().message.c_str());
  return common::ExitCodeOf(result.error().code);
}

int Run(const std::string& verb, const std::vector<std::string>& words) {
  Arguments arguments;
  if (verb == "show" && Parse(words, {}, &arguments)) return Report(Describe(arguments.positions[0]));
  if (verb == "export" && Parse(words, {"--to", "-o", "--tokenizer"}, &arguments) && !arguments.Option("-o").empty())
    return Report(Export(arguments));
  if (verb == "import" && Parse(words, {"-o"}, &arguments) && !arguments.Option("-o").empty())
    return Report(Import(arguments));
  std::fputs(kHelp, stderr);
  return common::ExitCodeOf(common::ErrorCode::kInvalidArgument);
}

}  // namespace

int CheckpointMain(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  if (verb == "--help" || verb == "-h") return std::fputs(kHelp, stdout) < 0;
  try {
    return Run(verb, {argv + std::min(argc, 2), argv + argc});
  } catch (const std::exception& e) {
    std::fprintf(stderr, "allo-trainer checkpoint: %s\n", e.what());
    return common::ExitCodeOf(common::ErrorCode::kInternal);
  }
}

}  // namespace allometry::trainer
