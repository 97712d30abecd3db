#include "worker/trainer/data/build_placed.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>

#include "common/files.h"
#include "worker/trainer/data/format.h"
#include "worker/trainer/data/token_file.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using common::Json;

std::string NameOf(const BuiltPart& part) {
  return part.name.empty() ? "the built data set" : "part '" + part.name + "'";
}

common::Result<RawFile> FileOf(const BuiltPart& part, const std::string& name) {
  for (const RawFile& file : part.files)
    if (file.name == name) return file;
  return common::InvalidArgument(NameOf(part) + " lacks the file '" + name + "': name the whole folder that was built");
}

common::Result<Json> ReadInfo(const BuiltPart& part, int64_t vocabulary) {
  ALLO_ASSIGN_OR_RETURN(const RawFile file, FileOf(part, kDataJson));
  ALLO_ASSIGN_OR_RETURN(const Json info, common::ReadJsonFile(file.path));
  if (!info.is_object() || info.value("format_version", int64_t{0}) != kDataFormatVersion)
    return common::InvalidArgument(NameOf(part) + ": its data.json is not of format version " +
                                   std::to_string(kDataFormatVersion) + ": build it again");
  if (info.contains("parts")) return common::InvalidArgument(NameOf(part) + " is a mixture: name its parts");
  const int64_t own = info.at("tokenizer").at("vocabulary").get<int64_t>();
  if (own != vocabulary)
    return common::InvalidArgument(NameOf(part) + " has a vocabulary of " + std::to_string(own) +
                                   ", and run.tokenizer.vocabulary is " + std::to_string(vocabulary));
  return info;
}

// The file, if it is the one that data.json names.
common::Result<RawFile> ListedFile(const BuiltPart& part, const Json& info, const std::string& name) {
  ALLO_ASSIGN_OR_RETURN(RawFile file, FileOf(part, name));
  if (info.at("files").at(name).at("sha256").get<std::string>() == file.sha256) return file;
  return common::DataLoss(NameOf(part) + ": '" + file.path.string() +
                          "' is not the file that its data.json names: build it again");
}

std::vector<std::string> TextFiles(const Json& info) {
  std::vector<std::string> names{kCountsFile};
  for (const char* side : {"train", "valid"})
    for (int64_t i = 0; i < info.at(side).at("shards").get<int64_t>(); ++i)
      for (const char* suffix : {".tokens", ".index"}) names.push_back(ShardStem(side, i).string() + suffix);
  return names;
}

// Shares the blocks of the file where the file system can (btrfs, XFS).
bool Clone(const fs::path& from, const fs::path& to) {
  const int in = ::open(from.c_str(), O_RDONLY | O_CLOEXEC);
  const int out = ::open(to.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  const bool cloned = in >= 0 && out >= 0 && ::ioctl(out, FICLONE, in) == 0 && ::fsync(out) == 0;
  if (in >= 0) ::close(in);
  if (out >= 0) ::close(out);
  return cloned;
}

common::Status SyncFile(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = fd >= 0 && ::fsync(fd) == 0;
  const std::string reason = common::ErrnoText();
  if (fd >= 0) ::close(fd);
  return synced ? common::Ok()
                : common::Status(common::FailedPrecondition("cannot write '" + path.string() + "': " + reason));
}

}  // namespace

common::Status LinkOrCopy(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::remove(to, error);
  fs::create_hard_link(fs::canonical(from, error), to, error);
  if (!error || Clone(from, to)) return common::Ok();
  fs::copy_file(from, to, fs::copy_options::overwrite_existing, error);
  if (!error) return SyncFile(to);
  const std::string message = "cannot copy '" + from.string() + "' to '" + to.string() + "': " + error.message();
  const bool full = error == std::errc::no_space_on_device || error.value() == EDQUOT;
  return full ? common::ResourceExhausted(message) : common::FailedPrecondition(message);
}

common::Result<PlacedText> PlaceBuilt(const BuiltPart& part, int64_t vocabulary, const fs::path& folder,
                                      KnownHashes* hashes) {
  PlacedText placed;
  ALLO_ASSIGN_OR_RETURN(placed.info, ReadInfo(part, vocabulary));
  try {
    ALLO_ASSIGN_OR_RETURN(placed.tokenizer, ListedFile(part, placed.info, kTokenizerFile));
    ALLO_RETURN_IF_ERROR(common::MakeDirectories(folder));
    for (const std::string& name : TextFiles(placed.info)) {
      ALLO_ASSIGN_OR_RETURN(const RawFile file, ListedFile(part, placed.info, name));
      ALLO_RETURN_IF_ERROR(LinkOrCopy(file.path, folder / name));
      (*hashes)[folder / name] = file.sha256;
    }
  } catch (const Json::exception& e) {
    return common::InvalidArgument(NameOf(part) + ": its data.json is not complete: " + e.what());
  }
  return placed;
}

}  // namespace allometry::trainer
