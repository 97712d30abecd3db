#include "cli/sweep_input.h"

#include <thread>

#include "cli/manifest.h"
#include "common/ids.h"
#include "coordinator/grid/sweep_file.h"

namespace allometry::cli {
namespace {

constexpr int kTries = 3;

}  // namespace

common::Result<SweepInput> ReadSweepInput(const std::filesystem::path& file, const std::string& data_root) {
  SweepInput input;
  ALLO_ASSIGN_OR_RETURN(input.spec, coordinator::ReadSweepFile(file));
  if (!data_root.empty()) input.spec.set_data_root(std::filesystem::absolute(data_root).lexically_normal().string());
  const std::filesystem::path folder = file.has_parent_path() ? file.parent_path() : ".";
  ALLO_RETURN_IF_ERROR(CompleteFromData(folder, &input.spec));
  ALLO_ASSIGN_OR_RETURN(input.manifest, ResolveManifest(input.spec, folder));
  return input;
}

void AddDataRootOption(CLI::App* verb, std::string* data_root) {
  verb->add_option(
      "--data-root", *data_root,
      "Folder that the sweep's data, tokenizer and tasks are looked for in, in place of the file's data_root");
}

common::Result<v1::SubmitResponse> Submit(Client& client, const SweepInput& input, bool update) {
  v1::SubmitRequest request;
  request.set_request_uuid(common::RandomUuid());  // the same in every try, so that trying again is safe
  *request.mutable_spec() = input.spec;
  request.mutable_manifest()->Assign(input.manifest.begin(), input.manifest.end());
  request.set_update(update);
  for (int attempt = 1;; ++attempt) {
    auto response = client.Call(client.sweeps(), &v1::SweepService::Stub::Submit, request, std::chrono::seconds(600));
    const bool again = !response && response.error().code == common::ErrorCode::kUnavailable && attempt < kTries;
    if (!again) return response;
    std::this_thread::sleep_for(std::chrono::seconds(attempt));
  }
}

std::string SubmittedText(const v1::SubmitResponse& response) {
  return response.sweep().name() + ": " + std::to_string(response.sweep().cells()) + " cells, " +
         std::to_string(response.new_runs()) + " new, " + std::to_string(response.reused_runs()) + " known already";
}

}  // namespace allometry::cli
