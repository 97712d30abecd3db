#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "allometry/v1/sweep_service.pb.h"

namespace allometry::cli {

// What a watching person should know of a sweep, put together from the watch stream. Pure: times are passed in, in
// seconds since the watching began. Not thread-safe.
class Progress {
 public:
  // A cell's last state replaces its earlier one. Returns the line that reports the change ("glu-pico-s0 done: loss
  // 5.213"), or nothing when only its step moved.
  std::optional<std::string> Apply(const v1::CellStatus& cell);
  void Apply(const v1::Sweep& sweep) { sweep_ = sweep; }

  // The live view, newest state: a line of totals, a bar per running cell (at most `max_bars`, then how many more), a
  // line per reason to wait. Each at most `width` columns.
  std::vector<std::string> Lines(double now_s, int width, int max_bars) const;
  // The totals alone: "12/49 done, 1 running, 36 waiting, 0 failed".
  std::string Totals() const;

  const v1::Sweep& sweep() const { return sweep_; }
  // Finished or cancelled: nothing will change any more.
  bool Ended() const;
  // All cells are done.
  bool Succeeded() const { return sweep_.cells() > 0 && sweep_.done() == sweep_.cells(); }

 private:
  std::string Bar(const v1::CellStatus& cell, size_t name_columns) const;
  // As many as the longest name of a running cell has, or as the numbers leave: bars stand below each other.
  size_t NameColumns(int width) const;

  v1::Sweep sweep_;
  std::map<std::string, v1::CellStatus> cells_;
};

// Cell names in a sweep's own view leave out "<sweep>/".
std::string ShortName(const std::string& cell);

}  // namespace allometry::cli
