#pragma once

#include <exception>
#include <functional>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "worker/trainer/distributed/rank_group.h"

namespace allometry::trainer {

// How `rank` of `ranks` threads of this process finds the others by a word that is handed over in memory.
class Meeting {
 public:
  explicit Meeting(int ranks) : ranks_(ranks), word_(promise_.get_future().share()) {}
  MeshOptions Options(int rank) {
    MeshOptions options;
    options.rank = rank;
    options.ranks = ranks_;
    options.publish_word = [this](const std::string& word) { promise_.set_value(word); };
    options.wait_for_word = [this] { return word_.get(); };
    options.connect_timeout_s = 600;
    return options;
  }
  std::string Word() { return word_.get(); }

 private:
  int ranks_;
  std::promise<std::string> promise_;
  std::shared_future<std::string> word_;
};

// f(rank) on a thread for each rank; the first exception of any rank comes out when all have ended.
inline void OnRanks(int ranks, const std::function<void(int rank)>& f) {
  std::vector<std::thread> threads;
  std::vector<std::exception_ptr> failures(static_cast<size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      try {
        f(rank);
      } catch (...) {
        failures[static_cast<size_t>(rank)] = std::current_exception();
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

// The same with a group on CPUs.
inline void InGroup(int ranks, const std::function<void(RankGroup& group)>& f) {
  Meeting meeting(ranks);
  OnRanks(ranks, [&](int rank) {
    RankGroup group(meeting.Options(rank), at::Device(at::kCPU));
    f(group);
  });
}

}  // namespace allometry::trainer
