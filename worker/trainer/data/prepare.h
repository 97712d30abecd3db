#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "common/json.h"
#include "common/result.h"
#include "worker/trainer/data/build_state.h"
#include "worker/trainer/engine/exit_code.h"

namespace allometry::trainer {

// The stage in which SentencePiece trains; nothing is reported between its beginning and its end.
inline constexpr const char* kTrainTokenizerStage = "train tokenizer";

// How far a preparation is. `done` and `total` are bytes of raw files as they lie on the disk, within the stage;
// `text_bytes` and `tokens` what came out of them, in the stages that read text and make tokens.
struct PrepareProgress {
  std::string stage;  // "verify", "read", "sample", kTrainTokenizerStage, "tokenize", "tasks"
  int64_t done = 0, total = 0;
  int64_t text_bytes = 0, tokens = 0;
  std::string note = {};  // something that a person should know, told once: what was left out
};

// Returns false to stop; called often.
using PrepareCallback = std::function<bool(const PrepareProgress&)>;

// Turns raw files, or data sets that were built before, into a data set, or writes tasks for one (docs/data.md
// describes `run`, its defaults, and the folder). `run` is run.json's `run` of kind "prepare", `execution` its
// `execution` (`files`: SHA-256 -> path, `threads`) with `data`, the folder of the text that tasks alone are for. The
// folder is built beside `output_dir`, as <output_dir>.partial (build_state.h), and renamed at the end; one that is
// there already with the same recipe is left as it is. A preparation that was stopped or killed, or whose disk was
// full, goes on after its last finished stage when it is started again. The same run gives the same bytes, whatever the
// threads and the interruptions. kInvalidArgument: `run` is wrong; kAborted: the callback said stop; kNotFound,
// kPermissionDenied, kDataLoss: the data; kResourceExhausted: the disk is full; kUnavailable: another process builds
// there. kBuildAnew replaces what lies at `output_dir` and beside it of other recipes; with kRefuse that is
// kAlreadyExists or kFailedPrecondition.
common::Status Prepare(const common::Json& run, const common::Json& execution, const std::filesystem::path& output_dir,
                       const PrepareCallback& progress, OnOtherRecipe on_other = OnOtherRecipe::kBuildAnew);

// The exit code that an error of the data library stands for (docs/trainer-contract.md): a configuration error for
// kInvalidArgument, stopped for kAborted, a crash (tried again) for a full disk or a broken invariant, otherwise a data
// error.
ExitCode ExitCodeOfDataError(const common::Error& error);

}  // namespace allometry::trainer
