#pragma once

#include <cstdint>

#include "arch/objective.h"

namespace allometry::trainer {

// Ids that every tokenizer here has; pieces of text begin behind them.
inline constexpr int32_t kPad = 0, kEos = 1, kUnknown = 2, kFirstPiece = 3;
using arch::kSentinels;

}  // namespace allometry::trainer
