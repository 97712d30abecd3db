#pragma once

#include "worker/trainer/kernels/types.h"

// Depthwise convolutions over time (Wu et al. 2019, arXiv 1901.10430), as ops::Convolve and DynamicConvolve. Arrays are
// [batch, length, channels]; what lies outside [0, length) is 0.
namespace allometry::trainer::kernels {

// y[b][t][c] = sum_j kernel[j][c] x[b][t + first + j][c]. The input's gradient is the same with the taps taken in the
// opposite order: `reversed`, and first = -first - (width - 1).
struct ConvolveArgs {
  const void* x = nullptr;
  const float* kernel = nullptr;  // [width, channels]
  void* y = nullptr;
  int64_t batch = 0, length = 0, channels = 0, width = 0, first = 0;
  bool reversed = false;  // tap j is kernel[width - 1 - j]
};

// dkernel[j][c] = sum_{b, t} dy[b][t][c] x[b][t + first + j][c].
struct ConvolveKernelGradientArgs {
  const void* x = nullptr;
  const void* dy = nullptr;
  float* dkernel = nullptr;    // [width, channels]
  float* workspace = nullptr;  // ConvolveWorkspace values
  int64_t batch = 0, length = 0, channels = 0, width = 0, first = 0;
};

// Positions of one sequence that are summed together, and parts into which that divides the batch.
constexpr int64_t kConvolvePart = 256;
constexpr int64_t ConvolveParts(int64_t batch, int64_t length) {
  return batch * ((length + kConvolvePart - 1) / kConvolvePart);
}
constexpr int64_t ConvolveWorkspace(int64_t batch, int64_t length, int64_t channels, int64_t width) {
  return ConvolveParts(batch, length) * width * channels;
}

// A kernel for every position: p[b][t][.][k] = softmax over j of logits[b][t][j][k], and
// y[b][t][c] = sum_j p[b][t][j][k] x[b][t + first + j][c] with k = c / (channels / kernels).
struct DynamicConvolveArgs {
  const void* x = nullptr;
  const void* logits = nullptr;  // [batch, length, width, kernels]
  void* y = nullptr;
  int64_t batch = 0, length = 0, channels = 0, width = 0, kernels = 0, first = 0;
};

struct DynamicConvolveBackwardArgs {
  const void* x = nullptr;
  const void* logits = nullptr;
  const void* y = nullptr;  // the forward pass's
  const void* dy = nullptr;
  void* dx = nullptr;
  void* dlogits = nullptr;
  float* workspace = nullptr;  // [batch, length, kernels]: log of the softmax's denominators
  int64_t batch = 0, length = 0, channels = 0, width = 0, kernels = 0, first = 0;
};

}  // namespace allometry::trainer::kernels
