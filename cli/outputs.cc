#include "cli/outputs.h"

#include <chrono>

#include "cli/interrupt.h"
#include "common/files.h"
#include "worker/daemon/blob_cache.h"
#include "worker/daemon/coordinator_client.h"

namespace allometry::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int64_t kSlowestBytesPerSecond = 1'000'000;
constexpr std::chrono::seconds kPatience{60};  // for a coordinator that is starting again

common::Status FetchFile(worker::BlobCache& blobs, const v1::BlobFile& file, const fs::path& folder) {
  if (!worker::IsSafeRelativePath(file.path()))
    return common::DataLoss("the coordinator names a file '" + file.path() + "', which is no place in a folder");
  const auto deadline = Clock::now() + kPatience + std::chrono::seconds(file.bytes() / kSlowestBytesPerSecond);
  const auto alive = [deadline] { return InterruptCount() == 0 && Clock::now() < deadline; };
  ALLO_ASSIGN_OR_RETURN(const fs::path blob, blobs.Fetch(file.sha256(), file.bytes(), alive));
  const fs::path target = folder / file.path();
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(target.parent_path()));
  std::error_code error;
  fs::remove(target, error);
  fs::copy_file(blob, target, error);  // no link: a blob is read-only, and its owner may want to change a model
  if (error) return common::ResourceExhausted("cannot write '" + target.string() + "': " + error.message());
  fs::permissions(target, fs::perms::owner_write, fs::perm_options::add, error);
  return common::Ok();
}

common::Status CheckNew(const fs::path& folder) {
  std::error_code error;
  if (!fs::exists(folder, error) || (fs::is_directory(folder, error) && fs::is_empty(folder, error)))
    return common::Ok();
  return common::AlreadyExists("'" + folder.string() + "' is there already and not empty: give another folder with -o");
}

}  // namespace

common::Status FetchOutput(const Client& client, const std::string& ca_file, const v1::Output& output,
                           const fs::path& folder) {
  ALLO_RETURN_IF_ERROR(CheckNew(folder));
  worker::WorkerOptions options;
  options.coordinator = client.address();
  options.token = client.token();
  options.ca_file = ca_file;
  ALLO_ASSIGN_OR_RETURN(const auto coordinator, worker::CoordinatorClient::Create(options));
  const fs::path partial = folder.string() + ".partial", files = partial / "files", downloads = partial / "blobs";
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(files));
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(downloads));
  worker::BlobCache blobs(downloads, *coordinator);
  for (const v1::BlobFile& file : output.files()) ALLO_RETURN_IF_ERROR(FetchFile(blobs, file, files));
  std::error_code error;
  fs::remove(folder, error);  // if it is there it is empty
  fs::rename(files, folder, error);
  if (error) return common::FailedPrecondition("cannot create '" + folder.string() + "': " + error.message());
  fs::remove_all(partial, error);
  return common::Ok();
}

}  // namespace allometry::cli
