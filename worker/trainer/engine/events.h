#pragma once

#include <filesystem>
#include <map>
#include <mutex>
#include <string>

#include "common/json.h"
#include "common/result.h"

namespace allometry::trainer {

// Appends the contract's events to a file, one whole line a write. A last line that an earlier attempt left without its
// newline is ended first, so that it cannot swallow the next one. Write and Metric are thread-safe. A write that fails
// leaves no part of its line behind.
class EventWriter {
 public:
  // An empty path: events go nowhere (a run by hand).
  static common::Result<EventWriter> Open(const std::filesystem::path& path);
  EventWriter(EventWriter&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  EventWriter& operator=(EventWriter&&) = delete;
  ~EventWriter();

  common::Status Write(const common::Json& event);
  common::Status Metric(int64_t step, const std::map<std::string, double>& values);

 private:
  explicit EventWriter(int fd) : fd_(fd) {}
  std::mutex mutex_;  // a line is written whole, and cut back whole
  int fd_ = -1;
};

// A number as the contract writes it: "nan", "inf" and "-inf" as strings.
common::Json NumberToJson(double value);
common::Json NumbersToJson(const std::map<std::string, double>& values);

}  // namespace allometry::trainer
