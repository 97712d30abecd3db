#include "coordinator/rpc/hub.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "common/grpc_status.h"

namespace allometry::coordinator {
namespace {

const grpc::Status kStopping(grpc::StatusCode::UNAVAILABLE, "the coordinator is stopping");

template <typename Stream>
std::function<void(const grpc::Status&)> Closer(const std::shared_ptr<Stream>& stream) {
  return [weak = std::weak_ptr<Stream>(stream)](const grpc::Status& status) {
    if (const auto alive = weak.lock()) alive->Close(status);
  };
}

}  // namespace

common::Result<std::unique_ptr<Hub>> Hub::Open(std::unique_ptr<store::Store> store, CoreOptions options) {
  std::unique_ptr<Hub> hub(new Hub);
  hub->now_boot_ms_ = options.now_boot_ms;
  ALLO_ASSIGN_OR_RETURN(hub->core_, Core::Open(std::move(store), std::move(options), hub.get()));
  hub->next_wake_boot_ms_ = hub->core_->NextWakeBootMs();
  hub->cluster_id_ = hub->core_->cluster_id();
  Strand::Options strand;
  strand.tick_interval = std::chrono::milliseconds(200);
  strand.tick = [h = hub.get()] { h->Tick(); };
  strand.commit = [h = hub.get()] { h->Commit(); };
  hub->strand_ = std::make_unique<Strand>(std::move(strand));
  return hub;
}

Hub::~Hub() { Stop(); }

void Hub::Stop() {
  stopping_ = true;
  if (strand_) strand_->Stop();
}

bool Hub::Post(std::function<void(Core&)> event) {
  return strand_->Post([this, event = std::move(event)] { event(*core_); });
}

void Hub::Tick() {
  if (next_wake_boot_ms_ && *next_wake_boot_ms_ <= now_boot_ms_()) core_->Tick();
}

void Hub::Commit() {
  while (core_->HasQueued()) {
    const common::Status status = core_->CommitBatch();
    std::string error = status.ok() ? "" : status.error().message;
    if (error != last_commit_error_) {
      error.empty() ? spdlog::info("storing works again") : spdlog::error("storing failed: {}", error);
      last_commit_error_ = std::move(error);
    }
    next_wake_boot_ms_ = core_->NextWakeBootMs();
    if (stopping_) continue;
    // A long submission goes on a piece at a time, and what came meanwhile shares its transactions.
    if (core_->HasQueued()) strand_->Post([] {});
    return;
  }
}

void Hub::CloseStreams() {
  std::vector<std::function<void(const grpc::Status&)>> closers;
  {
    std::lock_guard lock(open_mutex_);
    for (const auto& [stream, close] : open_) closers.push_back(close);
  }
  for (const auto& close : closers) close(kStopping);
}

// ---- Sync ----

SyncStream* Hub::OpenSync() {
  auto stream = SyncStream::Create({
      .message =
          [this](const std::shared_ptr<SyncStream>& from, v1::SyncRequest request) {
            // std::function wants a copyable event: the request travels behind a pointer.
            auto message = std::make_shared<v1::SyncRequest>(std::move(request));
            if (!Post([this, from, message](Core& core) { TakeSync(core, from, std::move(*message)); }))
              from->Close(kStopping);
          },
      .closed =
          [this](const std::shared_ptr<SyncStream>& from) {
            {
              std::lock_guard lock(open_mutex_);
              open_.erase(from.get());
            }
            Post([this, from](Core& core) { DropSync(core, from); });
          },
  });
  {
    std::lock_guard lock(open_mutex_);
    open_[stream.get()] = Closer(stream);
  }
  stream->ReadNext();
  return stream.get();
}

void Hub::TakeSync(Core& core, const std::shared_ptr<SyncStream>& stream, v1::SyncRequest request) {
  auto& current = syncs_[request.worker_id()];
  // The worker dialled in anew before its broken stream was noticed.
  if (current && current != stream) {
    current->Close(grpc::Status(grpc::StatusCode::ABORTED, "this worker has opened another Sync stream"));
  }
  current = stream;
  core.Sync(std::move(request), [stream](common::Result<v1::SyncResponse> response) {
    if (!response) return stream->Close(common::ToGrpc(response.error()));
    stream->Send(*response);
    stream->ReadNext();
  });
}

void Hub::DropSync(Core& core, const std::shared_ptr<SyncStream>& stream) {
  for (auto it = syncs_.begin(); it != syncs_.end();) {
    if (it->second == stream) {
      core.Disconnected(it->first);
      it = syncs_.erase(it);
    } else {
      ++it;
    }
  }
}

void Hub::SendOrders(int64_t worker_id, v1::SyncResponse response) {
  const auto it = syncs_.find(worker_id);
  if (it != syncs_.end()) it->second->Send(response);
}

// ---- Watch ----

WatchStream* Hub::OpenWatch(const v1::WatchRequest& request) {
  const auto drop = [this](const std::shared_ptr<WatchStream>& from) {
    {
      std::lock_guard lock(open_mutex_);
      open_.erase(from.get());
    }
    Post([this, from](Core& core) { DropWatch(core, from); });
  };
  const auto pump = [this](const std::shared_ptr<WatchStream>& from) {
    Post([this, from](Core& core) {
      const auto it = watch_ids_.find(from.get());
      if (it != watch_ids_.end()) PumpWatch(core, it->second);
    });
  };
  auto stream = WatchStream::Create({.written = pump, .closed = drop});
  {
    std::lock_guard lock(open_mutex_);
    open_[stream.get()] = Closer(stream);
  }
  if (!Post([this, stream, request](Core& core) { StartWatch(core, stream, request); })) stream->Close(kStopping);
  return stream.get();
}

void Hub::StartWatch(Core& core, const std::shared_ptr<WatchStream>& stream, const v1::WatchRequest& request) {
  auto watch_id = core.OpenWatch(request);
  if (!watch_id) return stream->Close(common::ToGrpc(watch_id.error()));
  watches_[*watch_id] = stream;
  watch_ids_[stream.get()] = *watch_id;
  PumpWatch(core, *watch_id);
}

void Hub::WatchReady(int64_t watch_id) {
  Post([this, watch_id](Core& core) { PumpWatch(core, watch_id); });
}

void Hub::PumpWatch(Core& core, int64_t watch_id) {
  const auto it = watches_.find(watch_id);
  if (it == watches_.end() || it->second->busy()) return;  // `written` comes back here
  auto event = core.TakeWatchEvent(watch_id);
  if (!event) return it->second->Close(common::ToGrpc(event.error()));
  if (event->has_value()) it->second->Write(std::move(**event));
}

void Hub::DropWatch(Core& core, const std::shared_ptr<WatchStream>& stream) {
  const auto it = watch_ids_.find(stream.get());
  if (it == watch_ids_.end()) return;
  core.CloseWatch(it->second);
  watches_.erase(it->second);
  watch_ids_.erase(it);
}

}  // namespace allometry::coordinator
