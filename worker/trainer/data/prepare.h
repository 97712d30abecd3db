#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "common/json.h"
#include "common/result.h"
#include "worker/trainer/engine/exit_code.h"

namespace allometry::trainer {

// The stage in which SentencePiece trains; nothing is reported between its beginning and its end.
inline constexpr const char* kTrainTokenizerStage = "train tokenizer";

// How far a preparation is. `done` and `total` are bytes of raw files as they lie on the disk, within the stage.
struct PrepareProgress {
  std::string stage;  // "verify", "read", kTrainTokenizerStage, "tokenize", "tasks"
  int64_t done = 0, total = 0;
};

// Returns false to stop; called often.
using PrepareCallback = std::function<bool(const PrepareProgress&)>;

// Turns raw files into a data set (docs/data.md describes `run`, its defaults, and the folder). `run` is run.json's
// `run` of kind "prepare", `execution` its `execution` (`files`: SHA-256 -> path, `threads`). The folder is built
// beside `output_dir` under a temporary name and renamed at the end; one that is there already with the same recipe is
// left as it is. The same run gives the same bytes, whatever the threads. kInvalidArgument: `run` is wrong; kAborted:
// the callback said stop, nothing is left behind; kNotFound, kPermissionDenied, kDataLoss: the data;
// kResourceExhausted: the disk is full.
common::Status Prepare(const common::Json& run, const common::Json& execution, const std::filesystem::path& output_dir,
                       const PrepareCallback& progress);

// The exit code that an error of the data library stands for (docs/trainer-contract.md): a configuration error for
// kInvalidArgument, stopped for kAborted, a crash (tried again) for a full disk or a broken invariant, otherwise a data
// error.
ExitCode ExitCodeOfDataError(const common::Error& error);

}  // namespace allometry::trainer
