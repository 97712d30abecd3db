#include "worker/daemon/report_queues.h"

#include <algorithm>
#include <fstream>

#include "worker/supervisor/event_tailer.h"

namespace allometry::worker {

void MetricQueue::Add(int64_t offset, int64_t step, const common::Json& values) {
  int64_t place = 0;
  for (const auto& [series, value] : values.items()) {
    const auto number = NumberOf(value);
    if (!number) continue;
    Entry*& open = open_[series];
    if (!open || open->closed || open->chunk.steps_size() >= kChunkPoints) {
      open = &entries_.emplace_back();
      open->chunk.set_attempt_id(attempt_id_);
      open->chunk.set_sequence(offset + place);
      open->chunk.set_series(series);
    }
    open->chunk.add_steps(step);
    open->chunk.add_values(*number);
    ++points_;
    ++place;
  }
}

bool MetricQueue::pending() const {
  return std::any_of(entries_.begin(), entries_.end(), [](const Entry& entry) { return entry.sent_in == 0; });
}

size_t MetricQueue::Collect(uint64_t number, size_t max_points,
                            google::protobuf::RepeatedPtrField<v1::MetricChunk>* out) {
  size_t points = 0;
  for (auto& entry : entries_) {
    const auto size = static_cast<size_t>(entry.chunk.steps_size());
    if (entry.sent_in != 0) continue;
    if (points + size > max_points) break;
    points += size;
    entry.sent_in = number;
    entry.closed = true;
    *out->Add() = entry.chunk;
  }
  return points;
}

void MetricQueue::Acknowledge(uint64_t number) {
  for (auto it = entries_.begin(); it != entries_.end();) {
    if (it->sent_in == 0 || it->sent_in > number) {
      ++it;
      continue;
    }
    points_ -= static_cast<size_t>(it->chunk.steps_size());
    auto open = open_.find(it->chunk.series());
    if (open != open_.end() && open->second == &*it) open_.erase(open);
    it = entries_.erase(it);
  }
}

void MetricQueue::Rewind() {
  for (auto& entry : entries_) entry.sent_in = 0;
}

size_t LogQueue::Collect(uint64_t number, size_t max_bytes, google::protobuf::RepeatedPtrField<v1::LogPart>* out) {
  const int64_t waiting = unacknowledged_bytes();
  if (sent_in_ != 0 || waiting <= 0 || max_bytes == 0) return 0;
  std::string data(std::min(max_bytes, static_cast<size_t>(waiting)), '\0');
  std::ifstream file(path_, std::ios::binary);
  file.seekg(acknowledged_);
  file.read(data.data(), static_cast<std::streamsize>(data.size()));
  data.resize(static_cast<size_t>(std::max<std::streamsize>(0, file.gcount())));
  if (data.empty()) return 0;
  sent_in_ = number;
  sent_end_ = acknowledged_ + static_cast<int64_t>(data.size());
  auto* part = out->Add();
  part->set_attempt_id(attempt_id_);
  part->set_stream(stream_);
  part->set_offset(acknowledged_);
  const size_t size = data.size();
  part->set_data(std::move(data));
  return size;
}

void LogQueue::Acknowledge(uint64_t number) {
  if (sent_in_ == 0 || number < sent_in_) return;
  acknowledged_ = sent_end_;
  sent_in_ = 0;
}

int64_t LogQueue::unacknowledged_bytes() const {
  std::error_code ec;
  const auto size = std::filesystem::file_size(path_, ec);
  return ec ? 0 : static_cast<int64_t>(size) - acknowledged_;
}

}  // namespace allometry::worker
