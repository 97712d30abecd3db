#include "worker/trainer/engine/batch_pump.h"

#include <chrono>

namespace allometry::trainer {

BatchPump::BatchPump(Maker maker, int64_t first, int64_t last, size_t depth)
    : depth_(depth), thread_([this, maker = std::move(maker), first, last] { Produce(maker, first, last); }) {}

BatchPump::~BatchPump() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void BatchPump::Produce(const Maker& maker, int64_t first, int64_t last) {
  try {
    for (int64_t step = first; step <= last; ++step) {
      HostBatch batch = maker(step);
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return closed_ || ready_.size() < depth_; });
      if (closed_) return;
      ready_.push_back(std::move(batch));
      lock.unlock();
      changed_.notify_all();
    }
  } catch (...) {
    std::lock_guard lock(mutex_);
    failure_ = std::current_exception();
    changed_.notify_all();
  }
}

HostBatch BatchPump::Next() {
  std::unique_lock lock(mutex_);
  if (ready_.empty() && !failure_) {
    const auto start = std::chrono::steady_clock::now();
    changed_.wait(lock, [this] { return !ready_.empty() || failure_; });
    if (first_taken_) wait_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  first_taken_ = true;
  if (ready_.empty()) std::rethrow_exception(failure_);
  HostBatch batch = std::move(ready_.front());
  ready_.pop_front();
  lock.unlock();
  changed_.notify_all();
  return batch;
}

}  // namespace allometry::trainer
