#include "worker/supervisor/event_tailer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace allometry::worker {

using common::Json;

bool EventTailer::Poll(const Sink& sink, int64_t max_bytes) {
  int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  std::vector<char> buffer(1 << 16);
  int64_t total = 0;
  while (total < max_bytes) {
    ssize_t n = ::pread(fd, buffer.data(), buffer.size(), read_offset_);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    read_offset_ += n;
    total += n;
    Consume(buffer.data(), static_cast<size_t>(n), sink);
  }
  ::close(fd);
  return total > 0;
}

void EventTailer::Consume(const char* data, size_t size, const Sink& sink) {
  const char* end = data + size;
  const int64_t data_end_offset = read_offset_;
  while (data < end) {
    const char* newline = static_cast<const char*>(std::memchr(data, '\n', static_cast<size_t>(end - data)));
    const char* stop = newline ? newline : end;
    if (!skipping_) line_.append(data, stop);
    if (static_cast<int64_t>(line_.size()) > kMaxLineBytes) {
      skipping_ = true;
      line_.clear();
    }
    if (!newline) return;
    if (skipping_) {
      Drop("a line is longer than 1 MiB");
    } else {
      TakeLine(sink);
    }
    data = newline + 1;
    line_offset_ = data_end_offset - (end - data);
    line_.clear();
    skipping_ = false;
  }
}

void EventTailer::TakeLine(const Sink& sink) {
  if (line_.find_first_not_of(" \t\r") == std::string::npos) return;
  Json event = Json::parse(line_, nullptr, /*allow_exceptions=*/false);
  if (!event.is_object() || !event.contains("event") || !event["event"].is_string())
    return Drop("a line is not a JSON object with an \"event\" text");
  sink(line_offset_, event);
}

void EventTailer::Drop(const std::string& reason) {
  ++dropped_lines_;
  dropped_reason_ = reason + " (byte " + std::to_string(line_offset_) + " of '" + path_.string() + "')";
}

std::optional<double> NumberOf(const Json& value) {
  if (value.is_number()) return value.get<double>();
  if (!value.is_string()) return std::nullopt;
  const std::string& text = value.get_ref<const std::string&>();
  if (text == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (text == "inf") return std::numeric_limits<double>::infinity();
  if (text == "-inf") return -std::numeric_limits<double>::infinity();
  return std::nullopt;
}

double NumberOr(const Json& object, const char* key, double fallback) {
  auto it = object.find(key);
  return it == object.end() ? fallback : NumberOf(*it).value_or(fallback);
}

int64_t IntegerOr(const Json& object, const char* key, int64_t fallback) {
  double value = NumberOr(object, key, static_cast<double>(fallback));
  return std::abs(value) < 9e15 ? static_cast<int64_t>(value) : fallback;  // also refuses NaN
}

std::string TextOr(const Json& object, const char* key, const std::string& fallback) {
  auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : fallback;
}

}  // namespace allometry::worker
