#include <cmath>

#include "common/table.h"
#include "coordinator/core/core_internal.h"
#include "coordinator/scheduler/gangs.h"

// What holds a cell up, as one paragraph for a person, and what would help.
namespace allometry::coordinator {
namespace {

std::string Blocked(const v1::ExplainResponse& response) {
  for (const v1::CellStatus& parent : response.parents()) {
    if (parent.state() == v1::RUN_STATE_FAILED)
      return "Blocked: it needs " + parent.cell() + ", which failed (" + parent.error() +
             "). Mend the cause, then `allo retry` it.";
    if (parent.state() == v1::RUN_STATE_DIVERGED)
      return "Blocked: it needs " + parent.cell() + ", which diverged. Change its recipe, or `allo retry` it.";
    if (parent.state() == v1::RUN_STATE_DONE)
      return "Blocked: it needs the outputs of " + parent.cell() +
             ", which were not kept when that finished. `allo retry` of this cell runs it again.";
    if (parent.waiting() == v1::WAIT_REASON_BLOCKED)
      return "Blocked: it needs " + parent.cell() + ", which is blocked itself.";
  }
  return "Blocked: a cell that it needs failed, diverged, or did not keep its outputs.";
}

// The memory that a GPU must have for one of so many ranks.
std::string GpuNeed(const scheduler::Run& run, int ranks) {
  const double bytes = scheduler::GpuFor(scheduler::BytesOnGpu(run, ranks));
  return bytes > 0 ? " (of a GPU: " + common::FormatQuantity(bytes) + " bytes)" : "";
}

std::string Ready(const scheduler::Run& run) {
  const int parts =
      scheduler::PartsAfterOutOfMemory(run, scheduler::kPartsOfDevice / std::max<int>(1, run.slots_per_gpu));
  if (parts == scheduler::kPartsOfDevice) return "It can run and waits for a free slot.";
  return "It can run and waits for a free slot, of a GPU for 1/" + std::to_string(scheduler::kPartsOfDevice / parts) +
         " that is free, or for more of one with less memory.";
}

std::string ParentPending(const v1::ExplainResponse& response) {
  std::string names;
  for (const v1::CellStatus& parent : response.parents())
    if (parent.state() != v1::RUN_STATE_DONE) names += (names.empty() ? "" : ", ") + parent.cell();
  return "It waits for " + (names.empty() ? std::string("a cell that it needs") : names) + " to finish.";
}

}  // namespace

// What a gang waits for.
std::string Core::ExplainPlaces(const scheduler::Run& run) const {
  const scheduler::Rooms empty = scheduler::EmptyRooms(state_);
  const std::string trainer = "trainer '" + state_.trainers[run.trainer] + "'";
  if (const int ranks = scheduler::RanksFor(empty, run); ranks > 0) {
    const scheduler::Offer offer = scheduler::LargestOffer(empty, run, ranks);
    return "It can run and waits until " + std::to_string(ranks) + (ranks == 1 ? " slot is" : " slots are") +
           " free at once: of '" + offer.kind + "' there are " + std::to_string(offer.ranks) +
           ". Slots that become free are kept for the first run that waits so.";
  }
  const int ranks = run.devices == 0 ? std::max<int>(1, run.most_devices) : run.devices;
  const scheduler::Offer offer = scheduler::LargestOffer(empty, run, ranks);
  const double bytes = static_cast<double>(scheduler::MemoryOfRank(run, ranks));
  const std::string needs = run.devices == 0 ? "up to " + std::to_string(ranks) + " devices (auto)"
                                             : std::to_string(ranks) + " devices of one kind";
  const std::string most = offer.ranks == 0 ? "none" : std::to_string(offer.ranks) + " ('" + offer.kind + "')";
  const std::string hint = MixedWorkers() + FaultyDevices();
  return "It needs " + needs + ", with " + common::FormatQuantity(bytes) + " bytes of memory each" +
         GpuNeed(run, ranks) + ", and of workers with " + trainer + " the cluster offers at most " + most +
         ". Start more workers, or lower `devices` and submit with --update." + hint;
}

// Workers that hold no ranks because their devices differ, and what to do about it.
std::string Core::MixedWorkers() const {
  std::string names;
  for (const auto& [id, worker] : state_.workers)
    if (worker.connected && worker.kind.empty()) names += (names.empty() ? "" : ", ") + workers_.at(id).name;
  if (names.empty()) return "";
  return " Ranks run on one kind of devices, and those of " + names +
         " are of several: start a worker for each kind there, with CUDA_VISIBLE_DEVICES.";
}

std::string Core::FaultyDevices() const {
  std::string faults;
  for (const auto& [id, worker] : state_.workers)
    for (size_t i = 0; worker.connected && i < worker.devices.size(); ++i)
      if (!worker.devices[i].fault.empty())
        faults += (faults.empty() ? "" : "; ") + workers_.at(id).name + " device " + std::to_string(i) + ": " +
                  worker.devices[i].fault;
  return faults.empty() ? "" : " Out of service: " + faults + ".";
}

std::string Core::ExplainText(const v1::CellStatus& cell, const v1::ExplainResponse& response) const {
  const scheduler::Run& run = *state_.FindRun(cell.run_id());
  const std::string attempts = std::to_string(cell.attempt()) + (cell.attempt() == 1 ? " attempt" : " attempts");
  switch (cell.state()) {
    case v1::RUN_STATE_DONE:
      return "Done after " + attempts + ".";
    case v1::RUN_STATE_FAILED:
      return "Failed after " + attempts + ": " + cell.error() + ". Mend the cause, then `allo retry` it.";
    case v1::RUN_STATE_DIVERGED:
      return "Diverged: " + cell.error() + ". Its recipe is too hot for it; it is never averaged in.";
    case v1::RUN_STATE_RUNNING: {
      const auto lease = state_.leases.find(run.live_attempt);
      const bool stopping = lease != state_.leases.end() && lease->second.stop;
      return std::string(stopping ? "Stopping" : "Running") + " on " + cell.worker() + ", step " +
             std::to_string(cell.step()) + " of " + std::to_string(cell.steps()) + ".";
    }
    default:
      break;
  }
  switch (cell.waiting()) {
    case v1::WAIT_REASON_READY:
      return run.devices == 1 ? Ready(run) : ExplainPlaces(run);
    case v1::WAIT_REASON_PARENT_PENDING:
      return ParentPending(response);
    case v1::WAIT_REASON_BLOCKED:
      return Blocked(response);
    case v1::WAIT_REASON_OVER_BUDGET:
      return "Its remaining " + common::FormatQuantity(scheduler::RestFlops(run)) +
             " FLOPs do not fit into what is left of the sweep's budget. Raise `budget.flops` and submit with "
             "--update.";
    case v1::WAIT_REASON_NO_FITTING_WORKER:
      if (run.devices != 1) return ExplainPlaces(run);
      return "No connected worker has trainer '" + state_.trainers[run.trainer] + "' and " +
             common::FormatQuantity(static_cast<double>(run.memory_bytes)) + " bytes of memory" + GpuNeed(run, 1) +
             ". Start one: `allo worker`." + FaultyDevices();
    case v1::WAIT_REASON_BACKOFF: {
      const int64_t left_ms = std::max<int64_t>(0, run.backoff_until_ms - options_.now_boot_ms());
      return "Its attempt failed (" + cell.error() + ") and is tried again in " +
             std::to_string((left_ms + 999) / 1000) + " s.";
    }
    case v1::WAIT_REASON_PAUSED:
      return "Its sweep is paused: `allo resume` lets it go on.";
    case v1::WAIT_REASON_CANCELLED:
      return "No live sweep wants it: submit its sweep again to revive it.";
    default:
      return "It waits.";
  }
}

}  // namespace allometry::coordinator
