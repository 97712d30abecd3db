#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace allometry::trainer {

// Which of several parts each row of a run comes from, by rates, without chance and without state. The first part takes
// a row whenever its rounded share of all rows grows, the next one likewise of the rows that are left, and so on; the
// last one has the rest. So after any number of rows each of K parts has had its share of them to within (K - 1) / 2
// rows. Immutable and thread-safe.
class RowSchedule {
 public:
  // Each rate is finite and above 0; only their ratios matter.
  explicit RowSchedule(std::span<const double> rates);

  struct Place {
    size_t part;
    uint64_t index;  // rows of that part before this one
  };
  Place operator()(uint64_t row) const;
  // How many of the first `rows` rows are the part's.
  uint64_t Count(size_t part, uint64_t rows) const;

 private:
  uint64_t Taken(size_t part, uint64_t rows) const;  // of the rows that the parts before have left
  std::vector<uint64_t> shares_;                     // of what is left, in units of 2^-53; the last part has none
};

}  // namespace allometry::trainer
