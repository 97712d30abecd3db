#pragma once

#include <string>

namespace allometry::trainer {

// How a trainer process ends (docs/trainer-contract.md).
enum class ExitCode : int {
  kDone = 0,
  kCrash = 1,
  kStopped = 40,
  kConfigurationError = 42,
  kDataError = 43,
  kDiverged = 44,
  kOutOfMemory = 45,
  kPeerLost = 46,           // another rank of the attempt is gone
  kDeviceLost = 47,         // the GPU is not there, or broken
  kDeviceFull = 48,         // other programs have its memory
  kDriverTooOld = 49,       // for LibTorch's CUDA
  kCollectiveTimeout = 50,  // another rank cannot be reached, or says nothing
};

// The end of a run: its code and, unless done, the reason for people.
struct Ending {
  ExitCode code = ExitCode::kDone;
  std::string reason;
};

}  // namespace allometry::trainer
