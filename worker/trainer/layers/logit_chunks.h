#pragma once

#include <algorithm>
#include <cstdint>

// In how many pieces a likelihood over the vocabulary goes, so that its logits are never all there.
namespace allometry::trainer {

// Logits whose gradients are held at once: the table's gradient is one product over them.
constexpr int64_t kHeldLogits = int64_t{1} << 28;
// Logits that go through product, softmax and product one after the other, so that a CPU's outer cache holds them.
// Fewer would cost more than they save: each of these products first brings the whole table into its own order.
constexpr int64_t kCachedLogits = int64_t{1} << 23;

// Rows of [rows, vocabulary] that go at once, at most `logits` of them: pieces of equal size, since a product over the
// few rows that are left costs nearly what a whole piece costs.
inline int64_t ChunkRows(int64_t rows, int64_t logits, int64_t vocabulary) {
  const int64_t most = std::max<int64_t>(1, logits / vocabulary),
                pieces = std::max<int64_t>(1, (rows + most - 1) / most);
  return std::max<int64_t>(1, (rows + pieces - 1) / pieces);
}

}  // namespace allometry::trainer
