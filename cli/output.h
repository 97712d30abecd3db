#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "common/table.h"

namespace allometry::cli {

// --format of a reading verb.
struct OutputOptions {
  std::string format = "table";
};
void AddOutputOptions(CLI::App* verb, OutputOptions* options);
common::OutputFormat FormatOf(const OutputOptions& options);

// Columns of the terminal on standard output; 80 when it is none.
int TerminalWidth();
bool IsTerminal(int fd);

// Prints a table to standard output in the wanted format.
void Print(const common::Table& table, const OutputOptions& options);
// JSON is `json` (an object), everything else the table.
void Print(const common::Table& table, const common::Json& json, const OutputOptions& options);

// "1:02:03", "12:05"; "-" for negative or endless times.
std::string FormatDuration(double seconds);
// "2026-01-31 12:00:00" in UTC; "-" for 0.
std::string FormatTime(int64_t unix_ms);

// A value that is absent where it is zero, as unset proto fields are.
common::TableValue OrNone(int64_t value);
common::TableValue OrNone(double value);
common::TableValue OrNone(const std::string& value);

}  // namespace allometry::cli
