#include "worker/trainer/data/build_progress.h"

#include <algorithm>
#include <cstdio>

#include "common/table.h"

namespace allometry::trainer {
namespace {

constexpr double kRedrawSeconds = 0.2, kLineSeconds = 10;
constexpr size_t kColumns = 79;

template <typename... Numbers>
std::string Format(const char* format, Numbers... numbers) {
  char text[128];
  std::snprintf(text, sizeof text, format, numbers...);
  return text;
}

std::string Duration(double seconds) {
  const auto s = static_cast<long long>(std::min(seconds, 1e9) + 0.5);
  return s < 3600 ? Format("%lld:%02lld", s / 60, s % 60) : Format("%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
}

}  // namespace

std::string ProgressLine(const PrepareProgress& p, double seconds, int64_t first_done) {
  std::string line = Format("%-16s", p.stage.c_str());
  if (p.total > 1) line += Format("%3.0f %%", 100.0 * static_cast<double>(p.done) / static_cast<double>(p.total));
  const auto done_here = static_cast<double>(p.done - first_done);
  if (seconds <= 0 || done_here <= 0) return line;
  // A count of tasks is no rate of bytes.
  if (p.stage == "tasks") return line;
  const double bytes = p.text_bytes > 0 ? static_cast<double>(p.text_bytes) : done_here;
  line += Format("  %6.1f MB/s", bytes / seconds / 1e6);
  if (p.tokens > 0) line += "  " + common::FormatQuantity(static_cast<double>(p.tokens) / seconds) + " tokens/s";
  line += "  left " + Duration(seconds * static_cast<double>(p.total - p.done) / done_here);
  return line.substr(0, kColumns);
}

BuildProgress::~BuildProgress() { EndLine(); }

void BuildProgress::EndLine() {
  if (open_line_) std::fputc('\n', stderr);
  open_line_ = false;
}

void BuildProgress::Show(const PrepareProgress& progress) {
  shown_ = Clock::now();
  std::string line = ProgressLine(progress, std::chrono::duration<double>(shown_ - began_).count(), first_done_);
  if (terminal_) line.insert(0, "\r").append(kColumns + 1 - line.size(), ' ');
  std::fprintf(stderr, terminal_ ? "%s" : "%s\n", line.c_str());
  std::fflush(stderr);
  open_line_ = terminal_;
}

bool BuildProgress::operator()(const PrepareProgress& progress) {
  if (!progress.note.empty()) {
    EndLine();
    std::fprintf(stderr, "%s\n", progress.note.c_str());
    return true;
  }
  const auto now = Clock::now();
  if (progress.stage != stage_) {
    EndLine();
    stage_ = progress.stage;
    first_done_ = progress.done;
    began_ = now;
    Show(progress);
    return true;
  }
  const bool complete = progress.done == progress.total;
  const double since = std::chrono::duration<double>(now - shown_).count();
  if (complete || since >= (terminal_ ? kRedrawSeconds : kLineSeconds)) Show(progress);
  return true;
}

}  // namespace allometry::trainer
