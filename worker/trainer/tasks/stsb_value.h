#pragma once

#include <string>
#include <string_view>

namespace allometry::trainer {

// The number that an answer to STS-B writes, blanks around it ignored; -1, which is below every gold value, for what is
// not a finite number. As T5 reads it, but that "nan" and "inf" are no numbers here: one would make the correlation of
// all answers undefined. Numbers outside 0 … 5 are kept: a correlation can take them.
double StsbValue(std::string_view answer);

// The gold value as it is trained on: rounded to the nearest multiple of 0.2 (halves to even, in float as T5 computes
// it), with one decimal. `value`: 0 … 5.
std::string StsbTarget(double value);

}  // namespace allometry::trainer
