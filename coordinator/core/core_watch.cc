#include <algorithm>

#include "coordinator/core/core_internal.h"

// Watches hold which runs changed, not what: a slow reader gets the newest state of each, once.
namespace allometry::coordinator {
namespace {

constexpr size_t kCellsPerEvent = 1'000;

}  // namespace

common::Result<int64_t> Core::OpenWatch(const v1::WatchRequest& request) {
  ALLO_ASSIGN_OR_RETURN(const int64_t sweep_id, SweepIdOf(request.sweep()));
  if (request.token() != 0 && (request.token() < first_event_ || request.token() > last_event_))
    return common::OutOfRange("watch token " + std::to_string(request.token()) + " is no longer known (oldest " +
                              std::to_string(first_event_) + ", newest " + std::to_string(last_event_) +
                              "): list the cells, then watch from the list's token");
  auto watch = std::make_unique<Watch>();
  watch->sweep_id = sweep_id;
  watch->token = request.token();
  if (request.token() == 0) {
    RestartWatch(*watch);
  } else {
    for (int64_t run : store_->RunsChangedSince(sweep_id, request.token())) {
      watch->sweep_dirty = true;
      if (run != 0) watch->dirty.insert(run);
    }
    ALLO_RETURN_IF_ERROR(store_->TakeError());
  }
  watches_[next_watch_] = std::move(watch);
  return next_watch_++;
}

void Core::CloseWatch(int64_t watch_id) { watches_.erase(watch_id); }

void Core::RestartWatch(Watch& watch) {
  watch.everything = watch.sweep_dirty = true;
  watch.after_position = 0;
  watch.dirty.clear();
}

void Core::MarkWatches(int64_t sweep_id, int64_t run_id) {
  for (auto& [id, watch] : watches_) {
    if (watch->sweep_id != sweep_id) continue;
    watch->sweep_dirty = true;
    if (run_id != 0) watch->dirty.insert(run_id);
  }
}

void Core::NotifyWatch(int64_t watch_id, Watch& watch) {
  if (watch.notified || !watch.sweep_dirty) return;
  watch.notified = true;
  outbox_->WatchReady(watch_id);
}

common::Result<std::optional<v1::WatchEvent>> Core::TakeWatchEvent(int64_t watch_id) {
  const auto found = watches_.find(watch_id);
  if (found == watches_.end()) return common::NotFound("the watch is closed");
  if (!loaded_) return common::Unavailable(storage_error_);
  Watch& watch = *found->second;
  watch.notified = false;
  if (!watch.sweep_dirty) return std::optional<v1::WatchEvent>();
  const std::string name = sweeps_.contains(watch.sweep_id) ? sweeps_.at(watch.sweep_id).name : "";
  if (name.empty()) return common::NotFound("the watched sweep is gone");
  v1::WatchEvent event;
  if (watch.everything)
    TakeFromPage(watch, name, &event);
  else
    TakeDirty(watch, name, &event);
  ALLO_RETURN_IF_ERROR(store_->TakeError());
  watch.sweep_dirty = watch.everything || !watch.dirty.empty();
  // What is left to send must come again after a reconnection: the token moves when all is sent.
  if (!watch.sweep_dirty) watch.token = last_event_;
  event.set_token(watch.token);
  *event.mutable_sweep() = SweepMessage(watch.sweep_id);
  NotifyWatch(watch_id, watch);
  return std::optional(std::move(event));
}

void Core::TakeFromPage(Watch& watch, const std::string& sweep, v1::WatchEvent* event) {
  const auto rows = store_->CellsAfter(watch.sweep_id, watch.after_position, kCellsPerEvent);
  for (const store::CellRow& row : rows) {
    watch.after_position = row.position;
    if (row.wanted) *event->add_cells() = CellMessage(row, sweep, true);
  }
  watch.everything = rows.size() == kCellsPerEvent;
}

void Core::TakeDirty(Watch& watch, const std::string& sweep, v1::WatchEvent* event) {
  for (size_t i = 0; i < kCellsPerEvent && !watch.dirty.empty(); ++i) {
    const int64_t run_id = *watch.dirty.begin();
    watch.dirty.erase(watch.dirty.begin());
    if (auto row = store_->CellOfRun(watch.sweep_id, run_id)) *event->add_cells() = CellMessage(*row, sweep, true);
  }
}

}  // namespace allometry::coordinator
