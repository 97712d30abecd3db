#include "coordinator/rpc/watch_stream.h"

#include <stdexcept>

namespace allometry::coordinator {

std::shared_ptr<WatchStream> WatchStream::Create(Handlers handlers) {
  std::shared_ptr<WatchStream> stream(new WatchStream(std::move(handlers)));
  stream->self_ = stream;
  return stream;
}

bool WatchStream::busy() {
  std::lock_guard lock(mutex_);
  return writing_;
}

void WatchStream::Write(v1::WatchEvent event) {
  std::lock_guard lock(mutex_);
  if (finished_) return;
  if (writing_) throw std::logic_error("a watch stream takes one message at a time");
  outgoing_ = std::move(event);
  writing_ = true;
  StartWrite(&outgoing_);
}

void WatchStream::Close(const grpc::Status& status) {
  std::lock_guard lock(mutex_);
  if (finished_) return;
  finished_ = true;
  Finish(status);
}

void WatchStream::OnWriteDone(bool ok) {
  const auto self = self_;
  {
    std::lock_guard lock(mutex_);
    writing_ = false;
  }
  ok ? handlers_.written(self) : Close(grpc::Status::CANCELLED);
}

void WatchStream::OnCancel() { Close(grpc::Status::CANCELLED); }

void WatchStream::OnDone() {
  const auto self = std::move(self_);
  handlers_.closed(self);
}

}  // namespace allometry::coordinator
