#include "coordinator/scheduler/retry.h"

#include <algorithm>

namespace allometry::scheduler {
namespace {

NextTry AfterCrash(Run& run, const TestHooks& hooks) {
  run.crashes = static_cast<uint8_t>(std::min(255, run.crashes + 1));
  if (run.crashes > kMaxCrashes && !hooks.ignore_retry_limit) return {RunState::kFailed, 0};
  return {RunState::kPending, BackoffMs(run.crashes)};
}

NextTry AfterPreemption(Run& run) {
  run.preemptions = static_cast<uint8_t>(std::min(255, run.preemptions + 1));
  return {run.preemptions > kMaxPreemptions ? RunState::kFailed : RunState::kPending, 0};
}

// The device is out of service where it failed, so that the next try is elsewhere. A pause, for workers that do not
// know their devices.
NextTry AfterFaultOfDevice(Run& run) {
  NextTry next = AfterPreemption(run);
  if (next.state == RunState::kPending) next.backoff_ms = kFirstBackoffMs;
  return next;
}

NextTry AfterOutOfMemory(Run& run, const Ending& ending) {
  const int64_t micro_batch = ending.micro_batch;
  run.out_of_memory = static_cast<uint8_t>(std::min(255, run.out_of_memory + 1));
  if (run.out_of_memory > kMaxOutOfMemory || (micro_batch <= 1 && ending.had_whole_device))
    return {RunState::kFailed, 0};
  if (micro_batch > 1) run.micro_batch = static_cast<uint32_t>(micro_batch / 2);
  return {RunState::kPending, 0};
}

}  // namespace

int64_t BackoffMs(int crashes) { return crashes < 1 ? 0 : kFirstBackoffMs << std::min(crashes - 1, kMaxCrashes - 1); }

NextTry DecideRetry(Run& run, const Ending& ending, const TestHooks& hooks) {
  switch (ending.outcome) {
    case Outcome::kDone:
      return {RunState::kDone, 0};
    case Outcome::kDiverged:
      return {RunState::kDiverged, 0};
    case Outcome::kConfigError:
    case Outcome::kDataError:
    case Outcome::kLimit:
      return {RunState::kFailed, 0};
    case Outcome::kOutOfMemory:
      return AfterOutOfMemory(run, ending);
    case Outcome::kStopped:
      return ending.stop_requested ? NextTry{} : AfterPreemption(run);
    case Outcome::kLost:
      return ending.progressed ? AfterPreemption(run) : AfterCrash(run, hooks);
    case Outcome::kDeviceLost:  // without progress perhaps the run's own doing, on any device
      return ending.progressed ? AfterFaultOfDevice(run) : AfterCrash(run, hooks);
    case Outcome::kDeviceFull:
      return AfterFaultOfDevice(run);
    case Outcome::kDriverTooOld:  // for a trainer of one's own no device is out of service, and another try no better
      return ending.builtin ? AfterFaultOfDevice(run) : AfterCrash(run, hooks);
    case Outcome::kCrash:
    case Outcome::kPeerLost:
    case Outcome::kCollectiveTimeout:
    case Outcome::kLostInput:
      return AfterCrash(run, hooks);
    case Outcome::kLive:
    case Outcome::kCancelled:
      break;
  }
  return {};
}

}  // namespace allometry::scheduler
