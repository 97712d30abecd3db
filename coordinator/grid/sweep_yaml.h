#pragma once

#include <string>

#include "allometry/v1/sweep.pb.h"
#include "common/result.h"

namespace allometry::coordinator {

// The sweep as a sweep file, with the fields that are given and in their order: ParseSweep reads the same message back.
std::string WriteSweep(const v1::SweepSpec& spec);

// From the text that the database keeps of a sweep (column `spec_json`). kDataLoss when it is none.
common::Result<v1::SweepSpec> SweepFromJson(const std::string& json);

}  // namespace allometry::coordinator
