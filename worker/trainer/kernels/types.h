#pragma once

#include <cstddef>
#include <cstdint>

#include "worker/trainer/layers/kernels.h"

// What the kernels' contracts share. All pointers are device memory, contiguous unless a stride is named; `void*` is of
// the call's DataType. Nothing is allocated, nothing waits: calls queue work on the stream and may be captured in a
// CUDA graph. Sums are taken in float32, without atomics, in an order that the sizes alone decide: equal bits at every
// call.
namespace allometry::trainer::kernels {

using Stream = void*;  // a cudaStream_t; null: the default stream

enum class DataType : int { kFloat32 = 0, kBfloat16 = 1 };

}  // namespace allometry::trainer::kernels
