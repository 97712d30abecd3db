#include "coordinator/rpc/sync_stream.h"

namespace allometry::coordinator {

std::shared_ptr<SyncStream> SyncStream::Create(Handlers handlers) {
  std::shared_ptr<SyncStream> stream(new SyncStream(std::move(handlers)));
  stream->self_ = stream;
  return stream;
}

void SyncStream::ReadNext() {
  std::lock_guard lock(mutex_);
  if (!finished_) StartRead(&incoming_);
}

void SyncStream::Send(const v1::SyncResponse& response) {
  std::lock_guard lock(mutex_);
  if (finished_) return;
  if (writing_) {
    waiting_ = response;
    return;
  }
  outgoing_ = response;
  writing_ = true;
  StartWrite(&outgoing_);
}

void SyncStream::Close(const grpc::Status& status) {
  std::lock_guard lock(mutex_);
  if (finished_) return;
  finished_ = true;
  Finish(status);
}

void SyncStream::OnReadDone(bool ok) {
  const auto self = self_;
  if (!ok) return Close(grpc::Status::OK);
  handlers_.message(self, std::move(incoming_));
}

void SyncStream::OnWriteDone(bool ok) {
  std::lock_guard lock(mutex_);
  writing_ = false;
  if (!ok || finished_ || !waiting_) return;
  outgoing_ = std::move(*waiting_);
  waiting_.reset();
  writing_ = true;
  StartWrite(&outgoing_);
}

void SyncStream::OnCancel() {}  // the read that is or will be under way fails

void SyncStream::OnDone() {
  const auto self = std::move(self_);
  handlers_.closed(self);
}

}  // namespace allometry::coordinator
