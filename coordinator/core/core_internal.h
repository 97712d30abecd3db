#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "coordinator/core/core.h"

// What Core's files share.
namespace allometry::coordinator {

struct Core::Queued {
  std::function<void(Batch&)> apply;
  std::function<void(const common::Error&)> fail;  // the reply, when the batch cannot be committed
};

// Events that share a transaction, and what is to leave after its COMMIT.
struct Core::Batch {
  int64_t boot_ms = 0;
  int64_t unix_ms = 0;
  scheduler::Actions actions;                     // of all events together
  std::vector<std::function<void()>> deliveries;  // replies, in the order of the events
  std::vector<std::function<void(const common::Error&)>> failures;
  std::set<int64_t> answered_workers;                 // get their orders with a reply
  std::set<int64_t> progressed_runs;                  // news for watchers without a durable event
  std::set<std::pair<int64_t, int64_t>> left_sweeps;  // (sweep, run) that is no longer a wanted cell of it
  std::set<int64_t> changed_sweeps;                   // beyond what the scheduler sees
  std::set<int64_t> removed_workers;
};

// A sweep that is being expanded, some cells a transaction.
struct Core::Submission {
  store::SweepRow row;
  const scheduler::Policy* policy = nullptr;
  std::vector<Cell> cells;
  size_t next = 0;
  std::unordered_map<std::string, int64_t> runs;  // by identity
  std::vector<int64_t> attached;
  int64_t new_runs = 0;
  int64_t first_position = 1;
  Reply<v1::SubmitResponse> reply;
};

struct Core::Watch {
  int64_t sweep_id = 0;
  int64_t token = 0;        // everything up to it has been taken
  bool everything = false;  // the sweep's cells from `after_position` on, besides `dirty`
  int64_t after_position = 0;
  bool sweep_dirty = false;
  bool notified = false;
  std::set<int64_t> dirty;  // runs
};

template <typename Response, typename Handler>
void Core::EnqueueCall(Reply<Response> reply, Handler handler) {
  auto shared = std::make_shared<Reply<Response>>(std::move(reply));
  Enqueue(
      [this, shared, handler = std::move(handler)](Batch& batch) {
        auto result = std::make_shared<common::Result<Response>>(handler(batch));
        batch.deliveries.push_back([shared, result] {
          if (*shared) (*shared)(std::move(*result));
        });
      },
      [shared](const common::Error& error) {
        if (*shared) (*shared)(error);
      });
}

// The fields of a message with numbers as JSON numbers, by their names in the proto file.
std::string CostsToJson(const v1::Costs& costs);
v1::Costs CostsFromJson(const std::string& json);
std::string TagsToJson(const std::map<std::string, std::string>& tags);
std::map<std::string, std::string> TagsFromJson(const std::string& json);
std::vector<std::string> StringsFromJson(const std::string& json);
// What the devices of a worker are, all of them: "cpu" without any, empty where they differ.
std::string DeviceKind(const std::vector<std::string>& devices);
// The worker's devices with their memory, as far as it is known.
std::vector<scheduler::Device> DevicesOf(const store::WorkerRow& row);
scheduler::Kind KindOf(v1::RunKind kind);
v1::RunKind KindFromName(const std::string& name);
v1::RunState StateMessage(scheduler::RunState state);
// Decides whether a second submission under a name is the same: cells and everything that steers them.
std::string ContentHash(const v1::SweepSpec& spec, const std::vector<Cell>& cells);
v1::Output OutputOf(const std::string& name, const std::vector<store::FileRow>& files);
// One line of at most 500 bytes.
std::string OneLine(const std::string& text);

}  // namespace allometry::coordinator
