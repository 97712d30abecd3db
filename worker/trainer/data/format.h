#pragma once

#include <cstdint>

// Names and versions of a prepared data set's folder (docs/data.md).
namespace allometry::trainer {

// 2: tokens in numbered shards, parts. Version 1 had one shard a side, without a number, and is read too.
inline constexpr int64_t kDataFormatVersion = 2;
// Raised whenever the same files and recipe would give other tokens or examples: part of every run's identity.
inline constexpr int64_t kDataNumericsVersion = 1;
inline constexpr char kDataJson[] = "data.json";
inline constexpr char kTokenizerFile[] = "spiece.model";
inline constexpr char kCountsFile[] = "train.counts";  // uint64 by id
inline constexpr char kPartsFolder[] = "parts";        // of a mixture: parts/NAME

}  // namespace allometry::trainer
