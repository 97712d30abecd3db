#pragma once

#include <cstdint>
#include <vector>

// Attention with T5's bucketed bias in float64, one element at a time, as the formulas say: the reference of the
// kernels' tests, itself checked by finite differences (attention_reference_test.cc).
namespace allometry::trainer::kernels {

struct ReferenceAttention {
  int64_t batch = 1, heads = 1, queries = 1, keys = 1, depth = 8;
  bool causal = false;
  std::vector<double> q, k, v;  // [batch, heads, rows, depth], dense
  std::vector<double> table;    // [32, heads], or empty
  std::vector<double> mask;     // [batch, keys], or empty
  // Share of the probabilities' dropout by this function of (batch, head, query, key): 0 or 1 / (1 - rate); may be
  // null.
  double (*kept)(const void* context, int64_t batch, int64_t head, int64_t query, int64_t key) = nullptr;
  const void* kept_context = nullptr;
};

struct ReferenceResult {
  std::vector<double> out, lse;
};
ReferenceResult Forward(const ReferenceAttention& attention);

struct ReferenceGradients {
  std::vector<double> dq, dk, dv, dtable;
};
ReferenceGradients Backward(const ReferenceAttention& attention, const std::vector<double>& dout);

}  // namespace allometry::trainer::kernels
