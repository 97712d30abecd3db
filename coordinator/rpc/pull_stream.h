#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <utility>

#include "common/thread_order.h"

namespace allometry::coordinator {

// A server stream that asks for its next message only when the last one has been written, on the pool: a slow reader
// holds up nobody and costs one message of memory. `next` answers by exactly one of Write, RetryAfter and End, at once
// or later. Owned by gRPC; the pool must outlive the server.
template <typename Message>
class PullStream final : public grpc::ServerWriteReactor<Message> {
 public:
  using Next = std::function<void(PullStream*)>;

  PullStream(boost::asio::thread_pool* pool, Next next) : pool_(pool), timer_(*pool), next_(std::move(next)) { Ask(); }

  void Write(Message message) {
    outgoing_ = std::move(message);
    common::OrderedBefore(this);
    this->StartWrite(&outgoing_);
  }
  void RetryAfter(std::chrono::milliseconds delay) {
    timer_.expires_after(delay);
    timer_.async_wait([this](const boost::system::error_code&) { Ask(); });
  }
  void End(const grpc::Status& status) {
    common::OrderedBefore(this);
    this->Finish(status);
  }

  void OnWriteDone(bool ok) override {
    common::OrderedAfter(this);
    ok ? Ask() : End(grpc::Status::CANCELLED);
  }
  void OnCancel() override { cancelled_ = true; }
  void OnDone() override {
    common::OrderedAfter(this);
    delete this;
  }

 private:
  void Ask() {
    boost::asio::post(*pool_, [this] { cancelled_ ? End(grpc::Status::CANCELLED) : next_(this); });
  }

  boost::asio::thread_pool* pool_;
  boost::asio::steady_timer timer_;
  Next next_;
  Message outgoing_;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace allometry::coordinator
