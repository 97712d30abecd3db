#include "cli/manifest.h"

#include <algorithm>
#include <cstdlib>

#include "cli/built_data.h"
#include "cli/task_files.h"
#include "common/file_patterns.h"
#include "common/files.h"
#include "common/sha256.h"
#include "coordinator/grid/known_tasks.h"
#include "coordinator/grid/shapes.h"

namespace allometry::cli {
namespace {

namespace fs = std::filesystem;
using coordinator::KnownData;

common::Result<v1::ManifestFile> Describe(const std::string& role, const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error))
    return common::InvalidArgument(path.string() + " is not a regular file" + (error ? ": " + error.message() : ""));
  v1::ManifestFile file;
  file.set_role(role);
  file.set_name(path.filename().string());
  file.set_bytes(static_cast<int64_t>(fs::file_size(path)));
  if (file.bytes() == 0) return common::InvalidArgument(path.string() + " is empty: give text to train on");
  ALLO_ASSIGN_OR_RETURN(*file.mutable_sha256(), common::Sha256HexOfFile(path));
  file.set_path(fs::absolute(path).lexically_normal().string());
  return file;
}

template <typename Patterns>
common::Result<std::vector<fs::path>> FilesOf(const Patterns& patterns, const fs::path& folder, const char* field) {
  return common::FilesOfPatterns({patterns.begin(), patterns.end()}, folder, field);
}

common::Status AddFiles(const std::string& role, const std::vector<fs::path>& paths,
                        std::vector<v1::ManifestFile>* manifest) {
  for (const fs::path& path : paths) {
    ALLO_ASSIGN_OR_RETURN(auto file, Describe(role, path));
    manifest->push_back(std::move(file));
  }
  return common::Ok();
}

common::Status AddText(const v1::DataSpec& data, const fs::path& folder, std::vector<v1::ManifestFile>* manifest) {
  ALLO_ASSIGN_OR_RETURN(const auto valid, FilesOf(data.valid(), folder, "data.valid"));
  ALLO_ASSIGN_OR_RETURN(auto text, FilesOf(data.text(), folder, "data.text"));
  std::erase_if(text, [&](const fs::path& path) { return std::ranges::count(valid, path) > 0; });
  if (text.empty() && data.text_size() > 0)
    return common::NotFound("data.text names no file that data.valid does not name too");
  ALLO_RETURN_IF_ERROR(AddFiles("corpus", text, manifest));
  return AddFiles("valid", valid, manifest);
}

fs::path Below(const fs::path& folder, const std::string& path) {
  return fs::path(path).is_absolute() ? fs::path(path) : folder / path;
}

// Folders of the sweep's built data sets, with the roles of their files.
std::vector<std::pair<std::string, fs::path>> BuiltFolders(const v1::DataSpec& data, const fs::path& folder) {
  std::vector<std::pair<std::string, fs::path>> folders;
  if (!data.path().empty()) folders.emplace_back("dataset", Below(folder, data.path()));
  for (const v1::DataPartSpec& part : data.mixture())
    folders.emplace_back("dataset:" + coordinator::PartNameOf(part), Below(folder, part.path()));
  return folders;
}

common::Status AddBuilt(const v1::DataSpec& data, const fs::path& folder, std::vector<v1::ManifestFile>* manifest) {
  std::string tokenizer, first;
  for (const auto& [role, path] : BuiltFolders(data, folder)) {
    ALLO_ASSIGN_OR_RETURN(BuiltData built, ReadBuiltData(path));
    if (first.empty()) {
      tokenizer = built.tokenizer_sha256;
      first = path.string();
    }
    if (built.tokenizer_sha256 != tokenizer)
      return common::InvalidArgument("data.mixture: '" + path.string() + "' has another tokenizer than '" + first +
                                     "': build both with the same --tokenizer");
    for (v1::ManifestFile& file : built.files) {
      file.set_role(role);
      manifest->push_back(std::move(file));
    }
  }
  return common::Ok();
}

fs::path FolderOf(const KnownData& known, const DataFolders& data) {
  return known.package == "wordnet-base" ? data.wordnet : data.dictd;
}

common::Status AddKnown(const KnownData& known, const std::string& role, const DataFolders& data,
                        std::vector<v1::ManifestFile>* manifest) {
  for (std::string_view name : known.layouts.front()) {
    const fs::path path = FolderOf(known, data) / name;
    std::error_code ignored;
    if (!fs::exists(path, ignored))
      return common::NotFound(std::string(known.name) + " needs " + path.string() +
                              ", which comes with the Debian package " + std::string(known.package) +
                              ": apt-get install " + std::string(known.package));
    ALLO_ASSIGN_OR_RETURN(auto file, Describe(role, path));
    manifest->push_back(std::move(file));
  }
  return common::Ok();
}

common::Status AddTask(const v1::TaskSpec& task, const fs::path& root, const DataFolders& data,
                       std::vector<v1::ManifestFile>* manifest) {
  const std::string role = "task:" + task.name();
  const KnownData* known = FindKnown(coordinator::KnownTasks(), task.name());
  if (known != nullptr && !known->package.empty()) return AddKnown(*known, role, data, manifest);
  ALLO_ASSIGN_OR_RETURN(const std::vector<TaskFile> files, FindTaskFiles(task, root));
  for (const auto& [name, path] : files) {
    ALLO_ASSIGN_OR_RETURN(v1::ManifestFile file, Describe(role, path));
    file.set_name(name);  // without the ending of a packed one: content tells
    manifest->push_back(std::move(file));
  }
  return common::Ok();
}

fs::path FromEnvironment(const char* variable, const char* otherwise) {
  const char* value = std::getenv(variable);
  return value && *value ? value : otherwise;
}

}  // namespace

DataFolders DataFoldersFromEnvironment() {
  return {FromEnvironment("ALLOMETRY_DICTD_DIR", "/usr/share/dictd"),
          FromEnvironment("ALLOMETRY_WORDNET_DIR", "/usr/share/wordnet")};
}

common::Status CompleteFromData(const fs::path& folder, v1::SweepSpec* spec) {
  const auto folders = BuiltFolders(spec->data(), folder / spec->data_root());
  if (folders.empty()) return common::Ok();
  ALLO_ASSIGN_OR_RETURN(const BuiltData built, ReadBuiltData(folders[0].second));
  v1::TokenizerSpec* tokenizer = spec->mutable_tokenizer();
  if (tokenizer->has_vocabulary() && tokenizer->vocabulary() != built.vocabulary)
    return common::InvalidArgument("tokenizer.vocabulary is " + std::to_string(tokenizer->vocabulary()) +
                                   ", and the data set '" + folders[0].second.string() + "' was built with " +
                                   std::to_string(built.vocabulary) + ": leave it out");
  tokenizer->set_vocabulary(built.vocabulary);
  return common::Ok();
}

common::Result<std::vector<v1::ManifestFile>> ResolveManifest(const v1::SweepSpec& spec, const fs::path& folder,
                                                              const DataFolders& data) {
  std::vector<v1::ManifestFile> manifest;
  const fs::path root = folder / spec.data_root();
  ALLO_RETURN_IF_ERROR(AddText(spec.data(), root, &manifest));
  ALLO_RETURN_IF_ERROR(AddBuilt(spec.data(), root, &manifest));
  if (const KnownData* corpus = FindKnown(coordinator::KnownCorpora(), spec.data().corpus()))
    ALLO_RETURN_IF_ERROR(AddKnown(*corpus, "corpus", data, &manifest));
  if (!spec.tokenizer().model().empty()) {
    ALLO_ASSIGN_OR_RETURN(auto file, Describe("tokenizer", Below(root, spec.tokenizer().model())));
    manifest.push_back(std::move(file));
  }
  for (const v1::TaskSpec& task : coordinator::TasksOf(spec))
    ALLO_RETURN_IF_ERROR(AddTask(task, root, data, &manifest));
  return manifest;
}

}  // namespace allometry::cli
