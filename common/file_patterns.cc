#include "common/file_patterns.h"

#include <glob.h>

#include <set>

namespace allometry::common {
namespace {

namespace fs = std::filesystem;

Result<std::vector<fs::path>> Matches(const fs::path& pattern, const std::string& what) {
  glob_t found{};
  const int code = glob(pattern.c_str(), GLOB_BRACE | GLOB_TILDE | GLOB_ERR, nullptr, &found);
  std::vector<fs::path> paths(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  globfree(&found);
  if (code == 0) return paths;
  if (code == GLOB_NOMATCH) return NotFound(what + ": no file matches '" + pattern.string() + "'");
  return PermissionDenied(what + ": cannot read the folders of '" + pattern.string() + "'");
}

Status AddFolder(const fs::path& folder, const std::string& what, std::set<fs::path>* files) {
  std::error_code error;
  fs::recursive_directory_iterator entries(folder, fs::directory_options::follow_directory_symlink, error);
  for (; !error && entries != fs::recursive_directory_iterator(); entries.increment(error)) {
    const bool hidden = entries->path().filename().string().starts_with('.');
    if (hidden && entries->is_directory()) entries.disable_recursion_pending();
    if (!hidden && entries->is_regular_file()) files->insert(entries->path());
  }
  if (!error) return Ok();
  return PermissionDenied(what + ": cannot read the folder '" + folder.string() + "': " + error.message());
}

}  // namespace

Result<std::vector<fs::path>> FilesOfPatterns(const std::vector<std::string>& patterns, const fs::path& folder,
                                              const std::string& what) {
  std::set<fs::path> files;  // two patterns may match the same file
  for (const std::string& pattern : patterns) {
    const bool as_is = fs::path(pattern).is_absolute() || pattern.starts_with('~');
    ALLO_ASSIGN_OR_RETURN(const auto matches, Matches(as_is ? fs::path(pattern) : folder / pattern, what));
    const size_t before = files.size();
    bool folders = false;
    for (const fs::path& path : matches) {
      std::error_code ignored;
      if (!fs::is_directory(path, ignored)) {
        files.insert(path);
        continue;
      }
      folders = true;
      ALLO_RETURN_IF_ERROR(AddFolder(path, what, &files));
    }
    if (folders && files.size() == before && matches.size() == 1)
      return NotFound(what + ": there is no file in the folder '" + matches[0].string() + "'");
  }
  return std::vector<fs::path>(files.begin(), files.end());
}

}  // namespace allometry::common
