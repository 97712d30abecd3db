#include "cli/output.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <iostream>

#include "common/clock.h"

namespace allometry::cli {

void AddOutputOptions(CLI::App* verb, OutputOptions* options) {
  verb->add_option("--format", options->format, "How to print")
      ->check(CLI::IsMember({"table", "csv", "json", "markdown"}))
      ->capture_default_str();
}

common::OutputFormat FormatOf(const OutputOptions& options) {
  return common::ParseOutputFormat(options.format).value();
}

int TerminalWidth() {
  winsize size{};
  const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20;
  return known ? size.ws_col : 80;
}

bool IsTerminal(int fd) { return isatty(fd) == 1; }

void Print(const common::Table& table, const OutputOptions& options) {
  // A file or a pipe gets whole columns, a terminal what fits.
  const int width = IsTerminal(STDOUT_FILENO) ? TerminalWidth() : 0;
  std::cout << common::Render(table, FormatOf(options), width) << std::flush;
}

void Print(const common::Table& table, const common::Json& json, const OutputOptions& options) {
  if (FormatOf(options) != common::OutputFormat::kJson) return Print(table, options);
  std::cout << json.dump(2) << '\n' << std::flush;
}

std::string FormatDuration(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "-";
  const auto total = static_cast<int64_t>(std::llround(seconds));
  char text[32];
  if (total >= 3600)
    std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", total / 3600, total / 60 % 60, total % 60);
  else
    std::snprintf(text, sizeof text, "%ld:%02ld", total / 60, total % 60);
  return text;
}

std::string FormatTime(int64_t unix_ms) {
  if (unix_ms == 0) return "-";
  return common::FormatUtc(unix_ms, "%Y-%m-%d %H:%M:%S");
}

common::TableValue OrNone(int64_t value) { return value == 0 ? common::TableValue() : common::TableValue(value); }
common::TableValue OrNone(double value) { return value == 0 ? common::TableValue() : common::TableValue(value); }
common::TableValue OrNone(const std::string& value) {
  return value.empty() ? common::TableValue() : common::TableValue(value);
}

}  // namespace allometry::cli
