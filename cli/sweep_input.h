#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "allometry/v1/sweep.pb.h"
#include "cli/client.h"
#include "common/result.h"

namespace allometry::cli {

// A sweep file as it is submitted: checked, with the files that it needs found and hashed.
struct SweepInput {
  v1::SweepSpec spec;
  std::vector<v1::ManifestFile> manifest;
};
// `data_root`, unless empty, goes before the file's and is relative to the working folder.
common::Result<SweepInput> ReadSweepInput(const std::filesystem::path& file, const std::string& data_root);
// --data-root, for verbs that read a sweep file.
void AddDataRootOption(CLI::App* verb, std::string* data_root);

// Submits under a request id of its own, tried again while the coordinator cannot be reached for a moment.
common::Result<v1::SubmitResponse> Submit(Client& client, const SweepInput& input, bool update);

// What a user is told after submitting: "quickstart: 49 cells, 49 new, 0 known".
std::string SubmittedText(const v1::SubmitResponse& response);

}  // namespace allometry::cli
