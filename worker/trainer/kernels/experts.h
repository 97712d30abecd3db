#pragma once

#include "worker/trainer/kernels/types.h"

// Tokens to experts and back at a fixed capacity (layers/experts.cc): shapes depend on no data, so that the experts'
// products are batched ones over [experts, batch width, d] and a CUDA graph may hold all of it.
namespace allometry::trainer::kernels {

// Slots are ordered by expert, sequence, place: `width` for each sequence and expert. A token takes the next place of
// its expert in its sequence; from `capacity` on, where it is padding, or with an expert of -1, it has none.
struct RouteArgs {
  const int64_t* expert = nullptr;   // [batch, length]
  const uint8_t* token = nullptr;    // [batch, length]: 0 is padding; or null
  int64_t* slot_of_token = nullptr;  // [batch, length]: -1 without one
  int64_t* token_of_slot = nullptr;  // [experts, batch, width]: -1 where it is empty
  int64_t* sent = nullptr;           // [batch, experts] or null: tokens that each expert was sent, served or not
  int64_t batch = 0, length = 0, experts = 0, capacity = 0, width = 0;
};
constexpr int64_t kMostExperts = 1024;

// out[i] = before[i] + scale x[index[i]], where index[i] is -1: before[i] alone; rows of d values. The scale is
// by_destination[i], or by_source[index[i]], or 1.
//   dispatch               index = token_of_slot
//   dispatch, backward     index = slot_of_token
//   combine                index = slot_of_token, by_destination = gate
//   combine, backward      index = token_of_slot, by_source = gate
struct GatherRowsArgs {
  const void* x = nullptr;
  const int64_t* index = nullptr;         // [rows]
  const float* by_destination = nullptr;  // or null
  const float* by_source = nullptr;       // or null
  const void* before = nullptr;           // [rows, d] or null: 0
  void* out = nullptr;                    // [rows, d]
  int64_t rows = 0, d = 0;
};

// dots[i] = sum_c a[i][c] b[index[i]][c], and 0 where index[i] is -1: the gate's gradient.
struct RowDotsArgs {
  const void* a = nullptr;  // [rows, d]
  const void* b = nullptr;
  const int64_t* index = nullptr;  // [rows]
  float* dots = nullptr;           // [rows]
  int64_t rows = 0, d = 0;
};

}  // namespace allometry::trainer::kernels
