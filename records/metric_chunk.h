#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace allometry::records {

// The data column of table metrics: zlib over steps (signed LEB128 differences, the first from 0) and then values
// (little-endian doubles). Steps and values have the same length.
std::string PackPoints(const std::vector<int64_t>& steps, const std::vector<double>& values);

struct Points {
  std::vector<int64_t> steps;
  std::vector<double> values;
};
// kDataLoss when the bytes are not of that form.
common::Result<Points> UnpackPoints(std::string_view data, int64_t points);

}  // namespace allometry::records
