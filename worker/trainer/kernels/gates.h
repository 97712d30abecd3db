#pragma once

#include "worker/trainer/kernels/types.h"

// What lies between two products of a feed-forward layer, and a GRU's gates: one value after another.
namespace allometry::trainer::kernels {

// out = act(u) v mask. Rows of u and v start `stride` apart: both contiguous, or the halves of one [rows, 2 columns].
struct GateForwardArgs {
  Activation activation = Activation::kSigmoid;
  const void* u = nullptr;
  const void* v = nullptr;
  const void* mask = nullptr;  // [rows, columns] or null: dropout's factors
  void* out = nullptr;         // [rows, columns]
  int64_t rows = 0, columns = 0, stride = 0;
};

// du = dout mask v act'(u), dv = dout mask act(u), laid out as u and v; they may be u's and v's memory.
struct GateBackwardArgs {
  Activation activation = Activation::kSigmoid;
  const void* u = nullptr;
  const void* v = nullptr;
  const void* mask = nullptr;  // as in the forward pass
  const void* dout = nullptr;  // [rows, columns]
  void* du = nullptr;
  void* dv = nullptr;
  int64_t rows = 0, columns = 0, stride = 0;
};

// y = max(x, 0) mask; y may be x.
struct ReluForwardArgs {
  const void* x = nullptr;
  const void* mask = nullptr;  // or null
  void* y = nullptr;
  int64_t n = 0;
};

// dx = dy mask where y, the forward pass's, is not 0; dx may be dy.
struct ReluBackwardArgs {
  const void* dy = nullptr;
  const void* y = nullptr;
  const void* mask = nullptr;  // or null
  void* dx = nullptr;
  int64_t n = 0;
};

// The gate of a residual connection by a GRU (layers/gru.cc): with r = sigmoid(reset), u = sigmoid(update) and
// c = tanh(candidate), products before their functions, first
//   y = r x                              (reset)
// which is normalised and multiplied into the candidate, and then
//   y = (1 - u) x + u c = x + u (c - x)  (mix).
// `update` and `reset` are columns of one product: their rows start `stride` apart.
struct GruResetForwardArgs {
  const void* x = nullptr;      // [rows, d]
  const void* reset = nullptr;  // stride
  void* y = nullptr;            // [rows, d]
  int64_t rows = 0, d = 0, stride = 0;
};
struct GruResetBackwardArgs {
  const void* x = nullptr;
  const void* reset = nullptr;
  const void* dy = nullptr;
  const void* dx_before = nullptr;  // [rows, d], added to dx, or null
  void* dx = nullptr;               // may be dx_before or dy
  void* dreset = nullptr;           // stride
  int64_t rows = 0, d = 0, stride = 0;
};
struct GruMixForwardArgs {
  const void* x = nullptr;          // [rows, d]
  const void* update = nullptr;     // stride
  const void* candidate = nullptr;  // [rows, d]
  void* y = nullptr;                // [rows, d]
  int64_t rows = 0, d = 0, stride = 0;
};
struct GruMixBackwardArgs {
  const void* x = nullptr;
  const void* update = nullptr;
  const void* candidate = nullptr;
  const void* dy = nullptr;
  void* dx = nullptr;  // may be dy
  void* dupdate = nullptr;
  void* dcandidate = nullptr;
  int64_t rows = 0, d = 0, stride = 0;
};

}  // namespace allometry::trainer::kernels
