#pragma once

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace allometry::coordinator {

// The one thread that owns the coordinator's state. Events that are queued together run one after another and are
// committed together: while one batch is being written to the disk, the next one gathers (group commit).
class Strand {
 public:
  struct Options {
    size_t max_batch_events = 1000;  // bounds how long the first of a batch waits for the last
    std::chrono::milliseconds tick_interval{1000};
    std::function<void()> tick;    // runs as an event of its own at every interval
    std::function<void()> commit;  // runs after the events of a batch
  };

  explicit Strand(Options options);
  ~Strand();  // Stop

  // Queues an event; from any thread. false after Stop: the event is dropped and will not run.
  bool Post(std::function<void()> event);

  // Runs what is queued, commits it, and ends the thread. Not from an event.
  void Stop();

  // CPU time (user and system) of the thread so far. From any thread but only before Stop.
  int64_t CpuNanoseconds() const;

 private:
  void ScheduleTick();
  void Drain();

  Options options_;
  boost::asio::io_context context_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  boost::asio::steady_timer timer_;
  std::mutex mutex_;  // guards queue_, draining_, stopped_
  std::vector<std::function<void()>> queue_;
  bool draining_ = false;  // a Drain is on its way and will see what is queued
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace allometry::coordinator
