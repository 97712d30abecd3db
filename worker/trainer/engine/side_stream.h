#pragma once

#include <c10/core/Device.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>
#include <c10/core/StreamGuard.h>

#include <optional>

namespace allometry::trainer {

// A stream beside the one that computes, for what goes on meanwhile: copies, exchanges between ranks. On a device
// without streams (a CPU) all is done in the order of the calls, and these do nothing. One thread at a time.
class SideStream {
 public:
  enum class Priority { kHigh, kNormal };
  explicit SideStream(const at::Device& device, Priority priority = Priority::kHigh);

  // What is put on this stream from now on begins after what the current stream holds now.
  void FollowCurrent() const { Order(Current(), own_); }
  // What is put on the current stream from now on begins after what this stream holds now. The host waits for neither.
  void LeadCurrent() const { Order(own_, Current()); }
  // A mark behind what this stream holds now; on a device without streams one that has passed.
  c10::Event Mark() const { return MarkOf(own_); }
  // The same of the current stream.
  c10::Event MarkCurrent() const { return MarkOf(Current()); }

  const c10::Stream& stream() const { return own_; }
  c10::Stream Current() const;
  // CUDA's own stream, for its C interfaces; null on a device without streams.
  void* handle() const { return device_.is_cpu() ? nullptr : own_.native_handle(); }

 private:
  c10::Event MarkOf(const c10::Stream& stream) const;
  void Order(const c10::Stream& first, const c10::Stream& then) const;

  at::Device device_;
  c10::Stream own_;
};

// While it lives, this stream is the current one; what is on either stream at its beginning and end comes before what
// is put on the other afterwards.
class OnStream {
 public:
  explicit OnStream(const SideStream& stream) : stream_(stream) {
    stream_.FollowCurrent();
    guard_.emplace(stream_.stream());
  }
  ~OnStream() {
    guard_.reset();
    try {
      stream_.LeadCurrent();
    } catch (const c10::Error&) {  // of a device that is lost: told where it is used next
    }
  }
  OnStream(const OnStream&) = delete;
  OnStream& operator=(const OnStream&) = delete;

 private:
  const SideStream& stream_;
  std::optional<c10::StreamGuard> guard_;
};

}  // namespace allometry::trainer
