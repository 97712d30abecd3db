#pragma once

#include <string>

#include "allometry/v1/sweep.pb.h"
#include "common/result.h"

namespace allometry::cli {

// The proto's enumerations as the words that people and JSON see: "pretrain", "running", "parent_pending", "active".
std::string KindName(v1::RunKind kind);
std::string StateName(v1::RunState state);
std::string ReasonName(v1::WaitReason reason);
std::string SweepStateName(v1::SweepState state);
common::Result<v1::RunState> ParseState(const std::string& name);

// What waiting for a reason means, as part of a sentence: "36 wait for their parents".
std::string ReasonText(v1::WaitReason reason);

}  // namespace allometry::cli
