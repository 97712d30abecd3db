#include "worker/supervisor/exit_class.h"

#include <csignal>
#include <sstream>

namespace allometry::worker {
namespace {

bool DiedOfStopSignal(const ProcessEnd& end) {
  auto is_stop = [](int signal) { return signal == SIGTERM || signal == SIGKILL || signal == SIGINT; };
  // A shell around the trainer reports its signal as 128 + number.
  return is_stop(end.signal) || (end.exit_code > 128 && is_stop(end.exit_code - 128));
}

std::string WhatHappened(const ProcessEnd& end, bool has_result) {
  if (end.cause == StopCause::kTimeLimit) return "stopped at its time limit";
  if (end.cause == StopCause::kMemoryLimit) return "killed at its memory limit";
  if (end.signal != 0) return "ended by signal " + std::to_string(end.signal);
  if (end.exit_code == 0 && !has_result) return "exit code 0 without a result event";
  return "exit code " + std::to_string(end.exit_code);
}

struct Sign {
  const char* text;
  ExitClass means;
};

// Texts of cudaGetErrorString (CUDA 13), PyTorch 2.11 and the kernel driver. Not here: "an illegal memory access",
// "device-side assert" and "invalid argument", which are a program's own mistakes, and NCCL's "unhandled cuda error",
// which may be any of them. Of MPS, whose server takes all clients of a GPU along: errors 805 to 810.
constexpr Sign kSigns[] = {
    {"driver on your system is too old", ExitClass::kDriverTooOld},
    {"driver version is insufficient for CUDA runtime version", ExitClass::kDriverTooOld},
    {"uncorrectable ECC error", ExitClass::kDeviceLost},
    {"uncorrectable NVLink error", ExitClass::kDeviceLost},
    {"peer GPU memory over nvlink or a hardware error", ExitClass::kDeviceLost},
    {"hardware stack error", ExitClass::kDeviceLost},
    {"unspecified launch failure", ExitClass::kDeviceLost},
    {"fallen off the bus", ExitClass::kDeviceLost},
    {"GPU is lost", ExitClass::kDeviceLost},
    {"Xid (", ExitClass::kDeviceLost},
    {"CUDA error: unknown error", ExitClass::kDeviceLost},
    {"no CUDA-capable device is detected", ExitClass::kDeviceLost},
    {"MPS client failed to connect", ExitClass::kDeviceLost},
    {"procedural call between the MPS server and the MPS client failed", ExitClass::kDeviceLost},
    {"MPS server is not ready", ExitClass::kDeviceLost},
    {"MPS client has been terminated by the server", ExitClass::kDeviceLost},
    {"resources required to create MPS client have been exhausted", ExitClass::kDeviceFull},
    {"resources required to support device connections have been exhausted", ExitClass::kDeviceFull},
    {"device(s) is/are busy or unavailable", ExitClass::kDeviceFull},
};

const char* Advice(ExitClass exit_class) {
  switch (exit_class) {
    case ExitClass::kDeviceLost:
      return ": the GPU failed, and is out of service until the probe finds it whole. See `dmesg` for its Xid and "
             "`nvidia-smi -q`, with MPS its server's log too; reset or replace it if it does not come back";
    case ExitClass::kDeviceFull:
      return ": another program uses the GPU, which is out of service until there is room. `nvidia-smi` names it; end "
             "it, or hide the GPU from the worker with CUDA_VISIBLE_DEVICES";
    case ExitClass::kDriverTooOld:
      return ": the machine's NVIDIA driver is too old for the trainer's CUDA. Update the driver, or start the worker "
             "with --no-devices or a trainer built for it";
    case ExitClass::kCollectiveTimeout:
      return ": another rank could not be reached, or was connected and silent, for the whole of "
             "execution.peer_timeout_s. See the other ranks' logs (`allo logs --rank`) and the network between them";
    default:
      return "";
  }
}

}  // namespace

ExitClass ClassifyText(const std::string& text) {
  for (const Sign& sign : kSigns)
    if (text.find(sign.text) != std::string::npos) return sign.means;
  return ExitClass::kCrash;
}

std::string TellingLine(const std::string& text) {
  std::string told, line;
  for (std::istringstream lines(text); std::getline(lines, line);) {
    if (line.empty()) continue;
    told = line;
    if (ClassifyText(line) != ExitClass::kCrash) break;
  }
  return told.substr(0, 200);
}

const char* ExitClassName(ExitClass exit_class) {
  switch (exit_class) {
    case ExitClass::kDone:
      return "done";
    case ExitClass::kStopped:
      return "stopped";
    case ExitClass::kConfigError:
      return "configuration error";
    case ExitClass::kDataError:
      return "data error";
    case ExitClass::kDiverged:
      return "diverged";
    case ExitClass::kOutOfMemory:
      return "out of memory";
    case ExitClass::kPeerLost:
      return "peer lost";
    case ExitClass::kDeviceLost:
      return "device lost";
    case ExitClass::kDeviceFull:
      return "device full";
    case ExitClass::kDriverTooOld:
      return "driver too old";
    case ExitClass::kCollectiveTimeout:
      return "collective timeout";
    case ExitClass::kCrash:
      return "crash";
    case ExitClass::kLimit:
      return "limit";
  }
  return "unknown";
}

ExitClass Classify(const ProcessEnd& end, bool has_result) {
  if (end.exit_code == 0 && has_result) return ExitClass::kDone;
  if (end.cause == StopCause::kTimeLimit || end.cause == StopCause::kMemoryLimit) return ExitClass::kLimit;
  switch (end.exit_code) {
    case 40:
      return ExitClass::kStopped;
    case 42:
      return ExitClass::kConfigError;
    case 43:
      return ExitClass::kDataError;
    case 44:
      return ExitClass::kDiverged;
    case 45:
      return ExitClass::kOutOfMemory;
    case 46:
      return ExitClass::kPeerLost;
    case 47:
      return ExitClass::kDeviceLost;
    case 48:
      return ExitClass::kDeviceFull;
    case 49:
      return ExitClass::kDriverTooOld;
    case 50:
      return ExitClass::kCollectiveTimeout;
    default:
      break;
  }
  if (end.cause == StopCause::kRequest && DiedOfStopSignal(end)) return ExitClass::kStopped;
  return ClassifyText(end.stderr_tail);
}

std::string DescribeEnd(const ProcessEnd& end, bool has_result) {
  std::string text = WhatHappened(end, has_result) + Advice(Classify(end, has_result));
  if (!end.stderr_tail.empty()) text += "\n" + end.stderr_tail;
  return text;
}

}  // namespace allometry::worker
