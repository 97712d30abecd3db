#include "coordinator/rpc/strand.h"

#include <pthread.h>
#include <time.h>

#include <boost/asio/post.hpp>
#include <iterator>

namespace allometry::coordinator {

Strand::Strand(Options options)
    : options_(std::move(options)), work_(boost::asio::make_work_guard(context_)), timer_(context_) {
  if (options_.tick) ScheduleTick();
  thread_ = std::thread([this] { context_.run(); });
}

Strand::~Strand() { Stop(); }

bool Strand::Post(std::function<void()> event) {
  std::lock_guard lock(mutex_);
  if (stopped_) return false;
  queue_.push_back(std::move(event));
  if (!draining_) {
    draining_ = true;
    boost::asio::post(context_, [this] { Drain(); });
  }
  return true;
}

void Strand::Drain() {
  std::vector<std::function<void()>> batch;
  {
    std::lock_guard lock(mutex_);
    if (queue_.size() <= options_.max_batch_events) {
      batch.swap(queue_);
    } else {
      const auto end = queue_.begin() + static_cast<ptrdiff_t>(options_.max_batch_events);
      batch.assign(std::make_move_iterator(queue_.begin()), std::make_move_iterator(end));
      queue_.erase(queue_.begin(), end);
    }
    if (batch.empty()) {
      draining_ = false;
      return;
    }
  }
  for (auto& event : batch) event();
  if (options_.commit) options_.commit();
  boost::asio::post(context_, [this] { Drain(); });
}

void Strand::ScheduleTick() {
  timer_.expires_after(options_.tick_interval);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (error || !Post(options_.tick)) return;
    ScheduleTick();
  });
}

void Strand::Stop() {
  {
    std::lock_guard lock(mutex_);
    if (stopped_) return;
    stopped_ = true;
  }
  // The last handler: after it nothing keeps the context alive but a Drain that still has a queue to empty.
  boost::asio::post(context_, [this] {
    timer_.cancel();
    work_.reset();
  });
  thread_.join();
}

int64_t Strand::CpuNanoseconds() const {
  clockid_t clock;
  timespec time{};
  if (::pthread_getcpuclockid(const_cast<std::thread&>(thread_).native_handle(), &clock) != 0) return 0;
  ::clock_gettime(clock, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace allometry::coordinator
