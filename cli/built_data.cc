#include "cli/built_data.h"

#include "common/json.h"
#include "common/sha256.h"

namespace allometry::cli {
namespace {

namespace fs = std::filesystem;
using common::Json;

constexpr char kDataJson[] = "data.json", kTokenizer[] = "spiece.model";

common::Error Damaged(const fs::path& folder, const std::string& what) {
  return common::InvalidArgument("the data set '" + folder.string() + "' " + what + ": build it again");
}

common::Result<v1::ManifestFile> Describe(const fs::path& folder, const std::string& name, const Json& listed) {
  const fs::path path = folder / name;
  std::error_code error;
  const auto bytes = static_cast<int64_t>(fs::file_size(path, error));
  if (error) return Damaged(folder, "lacks '" + name + "'");
  if (bytes != listed.at("bytes").get<int64_t>())
    return Damaged(folder, "is damaged: '" + name + "' has " + std::to_string(bytes) + " bytes, and data.json says " +
                               std::to_string(listed.at("bytes").get<int64_t>()));
  v1::ManifestFile file;
  file.set_name(name);
  file.set_bytes(bytes);
  file.set_sha256(listed.at("sha256").get<std::string>());
  file.set_path(fs::absolute(path).lexically_normal().string());
  return file;
}

common::Result<BuiltData> Read(const fs::path& folder, const Json& info) {
  BuiltData data;
  data.vocabulary = info.at("tokenizer").at("vocabulary").get<int64_t>();
  const Json& files = info.at("files");
  data.tokenizer_sha256 = files.at(kTokenizer).at("sha256").get<std::string>();
  for (const auto& [name, listed] : files.items()) {
    if (name.find('/') != std::string::npos) continue;  // tasks: a sweep names its own
    ALLO_ASSIGN_OR_RETURN(v1::ManifestFile file, Describe(folder, name, listed));
    data.files.push_back(std::move(file));
  }
  ALLO_ASSIGN_OR_RETURN(const std::string sha256, common::Sha256HexOfFile(folder / kDataJson));
  const Json own{{"bytes", fs::file_size(folder / kDataJson)}, {"sha256", sha256}};
  ALLO_ASSIGN_OR_RETURN(v1::ManifestFile file, Describe(folder, kDataJson, own));
  data.files.push_back(std::move(file));
  return data;
}

}  // namespace

common::Result<BuiltData> ReadBuiltData(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::exists(folder / kDataJson, ignored))
    return common::NotFound("'" + folder.string() + "' is no built data set: it has no " + kDataJson +
                            "; 'allo data build' makes one");
  ALLO_ASSIGN_OR_RETURN(const Json info, common::ReadJsonFile(folder / kDataJson));
  if (info.is_object() && info.contains("parts"))
    return common::InvalidArgument("'" + folder.string() + "' is a mixture: name its parts");
  try {
    return Read(folder, info);
  } catch (const Json::exception& e) {
    return Damaged(folder, std::string("has a damaged data.json (") + e.what() + ")");
  }
}

}  // namespace allometry::cli
