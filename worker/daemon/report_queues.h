#pragma once

#include <cstdint>
#include <filesystem>
#include <list>
#include <map>
#include <string>

#include "allometry/v1/worker_service.pb.h"
#include "common/json.h"

namespace allometry::worker {

// Both queues hold what an attempt still has to tell, in the order it came: Collect marks what goes into message
// `number`, Acknowledge forgets what messages up to a number carried, Rewind (the stream broke) makes all
// unacknowledged go out again. Not thread-safe.

// Metric points, as chunks of one series each. A chunk's sequence is the byte offset of its first event plus the place
// of the series in that event: unlike the bare offset it is unique in the attempt, since a line is longer than its
// series are many.
class MetricQueue {
 public:
  static constexpr size_t kMaxPoints = 100'000;  // beyond it the event file itself is the queue
  static constexpr int kChunkPoints = 512;

  explicit MetricQueue(int64_t attempt_id) : attempt_id_(attempt_id) {}
  void Add(int64_t offset, int64_t step, const common::Json& values);
  bool full() const { return points_ >= kMaxPoints; }
  size_t points() const { return points_; }
  // Whether something waits that no message carries yet.
  bool pending() const;
  // Unsent chunks of at most `max_points` points together; returns how many points.
  size_t Collect(uint64_t number, size_t max_points, google::protobuf::RepeatedPtrField<v1::MetricChunk>* out);
  void Acknowledge(uint64_t number);
  void Rewind();

 private:
  struct Entry {
    v1::MetricChunk chunk;
    uint64_t sent_in = 0;  // 0 = not sent on this stream
    bool closed = false;   // sent once: its extent is fixed from then on
  };
  int64_t attempt_id_;
  std::list<Entry> entries_;
  std::map<std::string, Entry*> open_;  // the chunk that a series' next point joins
  size_t points_ = 0;
};

// One log file, sent from its beginning as it grows.
class LogQueue {
 public:
  LogQueue(int64_t attempt_id, std::string stream, std::filesystem::path path)
      : attempt_id_(attempt_id), stream_(std::move(stream)), path_(std::move(path)) {}
  // At most one part is on its way at a time. Returns its bytes.
  size_t Collect(uint64_t number, size_t max_bytes, google::protobuf::RepeatedPtrField<v1::LogPart>* out);
  void Acknowledge(uint64_t number);
  void Rewind() { sent_in_ = 0; }
  int64_t unacknowledged_bytes() const;
  bool pending() const { return sent_in_ == 0 && unacknowledged_bytes() > 0; }

 private:
  int64_t attempt_id_;
  std::string stream_;
  std::filesystem::path path_;
  int64_t acknowledged_ = 0;
  int64_t sent_end_ = 0;
  uint64_t sent_in_ = 0;  // 0 = nothing on its way
};

}  // namespace allometry::worker
