#include "worker/trainer/data/row_schedule.h"

#include <cmath>
#include <numeric>

namespace allometry::trainer {

namespace {
constexpr int kBits = 53;  // a double's, so that a share has no rounding of its own
}

RowSchedule::RowSchedule(std::span<const double> rates) {
  for (size_t k = 0; k + 1 < rates.size(); ++k) {
    const double left = std::accumulate(rates.begin() + static_cast<std::ptrdiff_t>(k), rates.end(), 0.0);
    shares_.push_back(static_cast<uint64_t>(std::ldexp(rates[k] / left, kBits)));
  }
}

uint64_t RowSchedule::Taken(size_t part, uint64_t rows) const {
  using Wide = unsigned __int128;
  return static_cast<uint64_t>((Wide{rows} * shares_[part] + (Wide{1} << (kBits - 1))) >> kBits);
}

RowSchedule::Place RowSchedule::operator()(uint64_t row) const {
  for (size_t k = 0; k < shares_.size(); ++k) {
    const uint64_t taken = Taken(k, row);
    if (Taken(k, row + 1) > taken) return {k, taken};
    row -= taken;
  }
  return {shares_.size(), row};
}

uint64_t RowSchedule::Count(size_t part, uint64_t rows) const {
  for (size_t k = 0; k < part; ++k) rows -= Taken(k, rows);
  return part < shares_.size() ? Taken(part, rows) : rows;
}

}  // namespace allometry::trainer
