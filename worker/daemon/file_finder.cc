#include "worker/daemon/file_finder.h"

#include <sys/stat.h>

#include "common/sha256.h"

namespace allometry::worker {
namespace fs = std::filesystem;
namespace {

constexpr int kMaxVisited =
    200'000;  // a data root is a data folder; a whole file system by mistake must not hang a worker

// Regular files of the given size below the roots, those of the given name first.
std::vector<fs::path> Candidates(const std::vector<fs::path>& roots, const std::string& name, int64_t bytes) {
  std::vector<fs::path> named, others;
  int visited = 0;
  for (const auto& root : roots) {
    std::error_code ec;
    fs::recursive_directory_iterator it(root, fs::directory_options::skip_permission_denied, ec), end;
    for (; !ec && it != end && ++visited < kMaxVisited; it.increment(ec)) {
      std::error_code file_ec;
      if (!it->is_regular_file(file_ec) || static_cast<int64_t>(it->file_size(file_ec)) != bytes) continue;
      (it->path().filename() == name ? named : others).push_back(it->path());
    }
  }
  named.insert(named.end(), others.begin(), others.end());
  return named;
}

}  // namespace

common::Result<fs::path> FileFinder::Find(const std::string& sha256, int64_t bytes, const std::string& name,
                                          const fs::path& hint) {
  if (!hint.empty() && hint.is_absolute() && Matches(hint, sha256, bytes)) return hint;
  for (const auto& path : Candidates(roots_, name, bytes)) {
    if (Matches(path, sha256, bytes)) return fs::absolute(path);
  }
  return common::NotFound("no file with SHA-256 " + sha256 + " ('" + name + "', " + std::to_string(bytes) +
                          " bytes) at its hint or below a data root");
}

bool FileFinder::Matches(const fs::path& path, const std::string& sha256, int64_t bytes) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_size != bytes) return false;
  const Key key{path.string(), info.st_mtim.tv_sec * 1'000'000'000 + info.st_mtim.tv_nsec, info.st_size};
  {
    std::lock_guard lock(mutex_);
    if (auto it = hashes_.find(key); it != hashes_.end()) return it->second == sha256;
  }
  auto hash = common::Sha256HexOfFile(path);
  if (!hash) return false;
  std::lock_guard lock(mutex_);
  hashes_[key] = *hash;
  return *hash == sha256;
}

}  // namespace allometry::worker
