#pragma once

#include <vector>

#include "allometry/v1/sweep.pb.h"
#include "cli/client.h"
#include "common/result.h"

namespace allometry::cli {

// Gives the coordinator those files of a manifest that it does not have, so that workers need not see the submitter's
// folders. Goes on where a broken upload ended; tries again a few times while the coordinator cannot be reached.
// `ca_file` is as in ConnectOptions. kDataLoss: a file has changed since it was hashed.
common::Status UploadRawFiles(const Client& client, const std::string& ca_file,
                              const std::vector<v1::ManifestFile>& manifest);

}  // namespace allometry::cli
