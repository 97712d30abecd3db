#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "common/json.h"

namespace allometry::worker {

// Reads the event file that a trainer appends to, whole lines only: a last line without its newline is not there yet. A
// line over 1 MiB, or one that is no JSON object with an "event" text, is dropped and counted. Not thread-safe.
class EventTailer {
 public:
  static constexpr int64_t kMaxLineBytes = 1 << 20;
  // `offset`: where the line starts in the file, its sequence number.
  using Sink = std::function<void(int64_t offset, const common::Json& event)>;

  explicit EventTailer(std::filesystem::path path) : path_(std::move(path)) {}

  // Hands over the events appended since the last call, reading about `max_bytes` at most. Returns whether it read
  // anything; a file that is not there yet has nothing.
  bool Poll(const Sink& sink, int64_t max_bytes = 4 << 20);

  int64_t dropped_lines() const { return dropped_lines_; }
  // What was wrong with the last dropped line; empty when none was.
  const std::string& dropped_reason() const { return dropped_reason_; }

 private:
  void Consume(const char* data, size_t size, const Sink& sink);
  void TakeLine(const Sink& sink);
  void Drop(const std::string& reason);

  std::filesystem::path path_;
  int64_t read_offset_ = 0;  // bytes read from the file
  int64_t line_offset_ = 0;  // where line_ starts
  std::string line_;         // the unfinished line, at most kMaxLineBytes of it
  bool skipping_ = false;    // inside a line that is too long
  int64_t dropped_lines_ = 0;
  std::string dropped_reason_;
};

// A number of the contract: a JSON number, or "nan", "inf", "-inf". Nothing for anything else.
std::optional<double> NumberOf(const common::Json& value);
// The member's number, or `fallback` when it is absent or none.
double NumberOr(const common::Json& object, const char* key, double fallback);
int64_t IntegerOr(const common::Json& object, const char* key, int64_t fallback);
std::string TextOr(const common::Json& object, const char* key, const std::string& fallback);

}  // namespace allometry::worker
