#pragma once

#include <cstdint>

// Names and versions of a prepared data set's folder (docs/data.md).
namespace allometry::trainer {

inline constexpr int64_t kDataFormatVersion = 1;
// Raised whenever the same files and recipe would give other tokens or examples: part of every run's identity.
inline constexpr int64_t kDataNumericsVersion = 1;
inline constexpr char kDataJson[] = "data.json";
inline constexpr char kTokenizerFile[] = "spiece.model";
inline constexpr char kCountsFile[] = "train.counts";  // uint64 by id

}  // namespace allometry::trainer
