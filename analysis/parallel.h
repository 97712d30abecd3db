#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace allometry::analysis {

// Calls work(i) for each i in [0, count) on `threads` threads (0: as many as the machine runs at once), the caller's
// among them. `work` writes only what belongs to i, so that results do not depend on the number of threads.
template <typename Work>
void ParallelFor(size_t count, int threads, const Work& work) {
  const size_t wanted = threads > 0 ? static_cast<size_t>(threads) : std::max(1u, std::thread::hardware_concurrency());
  // Few enough that the threads end together, and not so few that they wait for the counter.
  const size_t chunk = std::clamp<size_t>(count / (8 * wanted), 1, 16);
  std::atomic<size_t> next = 0;
  const auto run = [&] {
    for (size_t first; (first = next.fetch_add(chunk)) < count;)
      for (size_t i = first; i < std::min(count, first + chunk); ++i) work(i);
  };
  std::vector<std::jthread> helpers;
  for (size_t t = 1; t < std::min(wanted, (count + chunk - 1) / chunk); ++t) helpers.emplace_back(run);
  run();
}

}  // namespace allometry::analysis
