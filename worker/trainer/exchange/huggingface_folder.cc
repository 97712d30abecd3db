#include "worker/trainer/exchange/huggingface_folder.h"

#include <ATen/ATen.h>

#include <functional>
#include <set>

#include "common/files.h"
#include "worker/trainer/checkpoint/safetensors.h"
#include "worker/trainer/data/format.h"
#include "worker/trainer/engine/model_folder.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using common::Json;
using common::Result;
using common::Status;

constexpr char kTensors[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";

common::Error In(const fs::path& path, const common::Error& error) {
  return {error.code, "'" + path.string() + "': " + error.message};
}

// Lets `write` fill a folder beside `out`, which then takes its name.
Status WriteWhole(const fs::path& out, const std::function<Status(const fs::path&)>& write) {
  std::error_code ec;
  if (fs::exists(out) && !fs::is_empty(out, ec))
    return common::AlreadyExists("'" + out.string() + "' is there already and not empty: give another folder with -o");
  const fs::path target = fs::absolute(out / "").lexically_normal().parent_path();
  const fs::path unfinished = target.string() + ".unfinished";
  fs::remove_all(unfinished, ec);
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(unfinished));
  if (Status written = write(unfinished); !written) {
    fs::remove_all(unfinished, ec);
    return written;
  }
  fs::rename(unfinished, target, ec);
  if (ec) return common::FailedPrecondition("cannot put the folder at '" + target.string() + "': " + ec.message());
  return common::SyncDirectory(target.parent_path());
}

Status CopyFile(const fs::path& from, const fs::path& to) {
  ALLO_ASSIGN_OR_RETURN(const std::string bytes, common::ReadFile(from));
  return common::WriteFileAtomically(to, bytes);
}

// The SentencePiece model that goes along; empty if there is none.
Result<fs::path> TokenizerOf(const fs::path& folder, const fs::path& given) {
  if (given.empty()) return fs::exists(folder / kTokenizerFile) ? folder / kTokenizerFile : fs::path();
  const fs::path file = fs::is_directory(given) ? given / kTokenizerFile : given;
  if (!fs::is_regular_file(file))
    return common::NotFound("there is no tokenizer '" + file.string() +
                            "': --tokenizer takes a SentencePiece model or a folder with " + kTokenizerFile);
  return file;
}

// The files that hold the tensors, by what the index says where there is one.
Result<std::set<std::string>> TensorFiles(const fs::path& folder) {
  if (fs::exists(folder / kTensors)) return std::set<std::string>{kTensors};
  if (!fs::exists(folder / kIndex))
    return common::NotFound("'" + folder.string() + "' has neither " + kTensors + " nor " + kIndex +
                            ": save the model with transformers' save_pretrained, which writes safetensors");
  ALLO_ASSIGN_OR_RETURN(const Json index, common::ReadJsonFile(folder / kIndex));
  std::set<std::string> files;
  if (index.is_object() && index.contains("weight_map") && index["weight_map"].is_object())
    for (const auto& [tensor, file] : index["weight_map"].items()) {
      if (!file.is_string() || fs::path(file.get<std::string>()).filename() != file.get<std::string>())
        return common::DataLoss("'" + (folder / kIndex).string() + "': tensor '" + tensor + "' is in " + file.dump() +
                                ", which is no file of the folder");
      files.insert(file.get<std::string>());
    }
  if (files.empty()) return common::DataLoss("'" + (folder / kIndex).string() + "' lists no tensors under weight_map");
  return files;
}

Result<Tensors> ReadTensors(const fs::path& folder) {
  ALLO_ASSIGN_OR_RETURN(const auto files, TensorFiles(folder));
  Tensors tensors;
  for (const std::string& file : files) {
    ALLO_ASSIGN_OR_RETURN(TensorFile part, ReadSafetensors(folder / file));
    tensors.merge(part.tensors);
  }
  return tensors;
}

Status WriteHuggingFace(const fs::path& folder, const Json& config, const Tensors& tensors) {
  auto written = WriteSafetensors(folder / kTensors, {tensors, {{"format", "pt"}}});
  if (!written) return written.error();
  Json generation = Json::object();
  for (const char* key : {"decoder_start_token_id", "eos_token_id", "pad_token_id"}) generation[key] = config.at(key);
  ALLO_RETURN_IF_ERROR(common::WriteFileAtomically(folder / "generation_config.json", generation.dump(2) + "\n"));
  return common::WriteFileAtomically(folder / kConfigJson, config.dump(2) + "\n");
}

}  // namespace

Result<ModelConfig> ReadHuggingFaceModel(const fs::path& folder) {
  if (!fs::exists(folder / kConfigJson))
    return common::NotFound("'" + folder.string() + "' has no " + kConfigJson +
                            ": give a folder that transformers' save_pretrained wrote");
  ALLO_ASSIGN_OR_RETURN(const Json config, common::ReadJsonFile(folder / kConfigJson));
  auto model = ModelOfHuggingFace(config);
  if (!model) return In(folder / kConfigJson, model.error());
  return model;
}

Status ExportToHuggingFace(const fs::path& folder, const fs::path& tokenizer, const fs::path& out) {
  ALLO_ASSIGN_OR_RETURN(const TrainedModel trained, ReadTrainedModel(folder));
  ALLO_ASSIGN_OR_RETURN(const Json config, HuggingFaceConfig(trained.model));
  ALLO_ASSIGN_OR_RETURN(const fs::path pieces, TokenizerOf(folder, tokenizer));
  ALLO_ASSIGN_OR_RETURN(const Tensors ours, ReadTrainedWeights(folder));
  const auto theirs = WeightsToHuggingFace(trained.model, ours);
  if (!theirs) return In(folder, theirs.error());
  return WriteWhole(out, [&](const fs::path& target) -> Status {
    if (!pieces.empty()) ALLO_RETURN_IF_ERROR(CopyFile(pieces, target / kTokenizerFile));
    return WriteHuggingFace(target, config, *theirs);
  });
}

Status ImportFromHuggingFace(const fs::path& folder, const fs::path& out) {
  ALLO_ASSIGN_OR_RETURN(const ModelConfig model, ReadHuggingFaceModel(folder));
  ALLO_ASSIGN_OR_RETURN(const Tensors theirs, ReadTensors(folder));
  const auto ours = WeightsFromHuggingFace(model, theirs);
  if (!ours) return In(folder, ours.error());
  ALLO_ASSIGN_OR_RETURN(const fs::path pieces, TokenizerOf(folder, {}));
  return WriteWhole(out, [&](const fs::path& target) -> Status {
    if (!pieces.empty()) ALLO_RETURN_IF_ERROR(CopyFile(pieces, target / kTokenizerFile));
    return WriteModelFolder(target, model, "fp32", *ours);
  });
}

}  // namespace allometry::trainer
