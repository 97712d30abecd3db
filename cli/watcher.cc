#include "cli/watcher.h"

#include <algorithm>
#include <utility>

namespace allometry::cli {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

SweepWatcher::SweepWatcher(Client& client, std::string sweep, std::chrono::seconds patience)
    : client_(client), sweep_(std::move(sweep)), patience_(patience), heard_(steady_clock::now()) {
  thread_ = std::thread([this] { Follow(); });
}

SweepWatcher::~SweepWatcher() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    if (context_) context_->TryCancel();
  }
  changed_.notify_all();
  thread_.join();
}

WatchChanges SweepWatcher::Take(milliseconds timeout) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [this] { return fresh_ || stopping_; });
  fresh_ = false;
  return std::exchange(pending_, {});
}

void SweepWatcher::Follow() {
  milliseconds pause(200);
  for (;;) {
    const auto before = heard_;
    const grpc::Status status = ReadStream();
    if (heard_ != before) pause = milliseconds(200);
    const common::ErrorCode code = common::ErrorCodeOf(status.error_code());
    const bool expired = code == common::ErrorCode::kOutOfRange;
    if (expired) token_ = 0;
    const bool patient = steady_clock::now() - heard_ < patience_;
    const bool again = status.ok() || expired || (code == common::ErrorCode::kUnavailable && patient);
    std::unique_lock lock(mutex_);
    if (stopping_) return;
    fresh_ = true;
    if (!again) {
      pending_.ended = client_.ErrorOf(status);
      changed_.notify_all();
      return;
    }
    if (!status.ok() && !expired) pending_.notice = "no connection to the coordinator; trying again";
    changed_.notify_all();
    if (changed_.wait_for(lock, pause, [this] { return stopping_; })) return;
    pause = std::min(pause * 2, milliseconds(5000));
  }
}

grpc::Status SweepWatcher::ReadStream() {
  const auto context = std::make_shared<grpc::ClientContext>();
  client_.Prepare(context.get());
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return grpc::Status::OK;
    context_ = context;
  }
  v1::WatchRequest request;
  request.set_sweep(sweep_);
  request.set_token(token_);
  const auto reader = client_.sweeps().Watch(context.get(), request);
  v1::WatchEvent event;
  while (reader->Read(&event)) {
    heard_ = steady_clock::now();
    token_ = event.token();
    std::lock_guard lock(mutex_);
    if (event.has_sweep()) pending_.sweep = event.sweep();
    for (v1::CellStatus& cell : *event.mutable_cells()) pending_.cells.push_back(std::move(cell));
    fresh_ = true;
    changed_.notify_all();
  }
  return reader->Finish();
}

}  // namespace allometry::cli
