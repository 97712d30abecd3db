#include "cli/manifest.h"

#include <glob.h>

#include <cstdlib>
#include <set>

#include "cli/task_files.h"
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

common::Result<std::vector<fs::path>> Matches(const std::string& pattern, const fs::path& folder) {
  const fs::path whole = fs::path(pattern).is_absolute() ? fs::path(pattern) : folder / pattern;
  glob_t found{};
  const int code = glob(whole.c_str(), GLOB_BRACE | GLOB_TILDE | GLOB_ERR, nullptr, &found);
  std::vector<fs::path> paths(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  globfree(&found);
  if (code == 0) return paths;
  if (code == GLOB_NOMATCH) return common::NotFound("data.text: no file matches '" + whole.string() + "'");
  return common::PermissionDenied("data.text: cannot read the folders of '" + whole.string() + "'");
}

common::Status AddText(const v1::SweepSpec& spec, const fs::path& folder, std::vector<v1::ManifestFile>* manifest) {
  std::set<fs::path> paths;  // two patterns may match the same file
  for (const std::string& pattern : spec.data().text()) {
    ALLO_ASSIGN_OR_RETURN(const auto matches, Matches(pattern, folder));
    paths.insert(matches.begin(), matches.end());
  }
  for (const fs::path& path : paths) {
    ALLO_ASSIGN_OR_RETURN(auto file, Describe("corpus", path));
    manifest->push_back(std::move(file));
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

common::Result<std::vector<v1::ManifestFile>> ResolveManifest(const v1::SweepSpec& spec, const fs::path& folder,
                                                              const DataFolders& data) {
  std::vector<v1::ManifestFile> manifest;
  const fs::path root = folder / spec.data_root();
  ALLO_RETURN_IF_ERROR(AddText(spec, root, &manifest));
  if (const KnownData* corpus = FindKnown(coordinator::KnownCorpora(), spec.data().corpus()))
    ALLO_RETURN_IF_ERROR(AddKnown(*corpus, "corpus", data, &manifest));
  if (!spec.tokenizer().model().empty()) {
    const fs::path model = spec.tokenizer().model();
    ALLO_ASSIGN_OR_RETURN(auto file, Describe("tokenizer", root / model));
    manifest.push_back(std::move(file));
  }
  for (const v1::TaskSpec& task : coordinator::TasksOf(spec))
    ALLO_RETURN_IF_ERROR(AddTask(task, root, data, &manifest));
  return manifest;
}

}  // namespace allometry::cli
