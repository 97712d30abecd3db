#pragma once

#include <ATen/core/Tensor.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace allometry::trainer {

// One global batch in CPU memory. Shapes as in models/model.h: b batch, s input positions, t target positions.
struct HostBatch {
  at::Tensor inputs_bs;       // int64
  at::Tensor targets_bt;      // int64
  int64_t target_tokens = 0;  // unpadded targets of the whole batch
};

// Makes batches on a thread of its own, ahead of the steps that use them. The maker is a pure function of the step and
// is only called on that thread. An exception it throws comes out of Next. Next is for one thread.
class BatchPump {
 public:
  using Maker = std::function<HostBatch(int64_t step)>;

  // Batches of steps first ... last (inclusive), at most `depth` of them waiting.
  BatchPump(Maker maker, int64_t first, int64_t last, size_t depth);
  BatchPump(const BatchPump&) = delete;
  ~BatchPump();

  HostBatch Next();
  // Seconds that Next has waited, the first batch left out: nothing could have been made before it was asked for.
  double wait_seconds() const { return wait_seconds_; }

 private:
  void Produce(const Maker& maker, int64_t first, int64_t last);

  const size_t depth_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<HostBatch> ready_;  // guarded by mutex_
  std::exception_ptr failure_;   // guarded by mutex_
  bool closed_ = false;          // guarded by mutex_
  bool first_taken_ = false;
  double wait_seconds_ = 0;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace allometry::trainer
