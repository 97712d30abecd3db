#pragma once

#include <cstdint>

// Loops over rows for CPUs, compiled once per instruction set and chosen at run time; no LibTorch here. All pointers
// are dense, rows follow one another, nothing is allocated, and every function may run on several threads over
// different rows. Sums and exponentials are taken in `Sum` (float32 for float32 and bfloat16, float64 for float64).
namespace allometry::trainer {

// The bits of a bfloat16.
struct Bf16 {
  uint16_t bits;
};

template <typename T>
struct SumTypeOf {
  using type = float;
};
template <>
struct SumTypeOf<double> {
  using type = double;
};

constexpr int64_t kLargestDynamicWidth = 16;

// Functions of a gated layer's gate. Gelu in its tanh form (Hendrycks and Gimpel 2016, arXiv 1606.08415).
enum class Activation { kSigmoid, kGelu, kSilu, kRelu };

template <typename T>
struct Kernels {
  using Sum = typename SumTypeOf<T>::type;

  // y = x r w with r = (mean x^2 + epsilon)^-1/2, which is kept: one value a row.
  void (*norm_forward)(const T* x, const T* w, T* y, Sum* r, int64_t rows, int64_t d, Sum epsilon);
  // dx = residual + gradient of the norm; dw_sum [d] is added to. `residual` may be null.
  void (*norm_backward)(const T* dy, const T* x, const T* w, const Sum* r, const T* residual, T* dx, Sum* dw_sum,
                        int64_t rows, int64_t d);
  // Softmax of scores + bias + mask in place over one row of n; bias and mask may be null.
  void (*softmax_forward)(T* scores, const Sum* bias, const Sum* mask, int64_t n);
  // Turns dp, the gradient of the probabilities p, into that of the scores, in place; adds it to bias_sum (may be
  // null).
  void (*softmax_backward)(const T* p, T* dp, Sum* bias_sum, int64_t n);
  // Negative log-likelihood of `target` under a row of n logits; with `gradient`, the logits become its gradient.
  Sum (*cross_entropy)(T* logits, int64_t target, int64_t n, bool gradient);
  // out = act(u) v for rows of `columns`, whose starts lie `stride` apart in u and v; out is dense.
  void (*gate_forward)(Activation act, const T* u, const T* v, int64_t stride, T* out, int64_t rows, int64_t columns);
  // du and dv are laid out as u and v.
  void (*gate_backward)(Activation act, const T* u, const T* v, const T* dout, T* du, T* dv, int64_t stride,
                        int64_t rows, int64_t columns);
  // One example of a depthwise convolution: y[t][c] = sum_j kernel[j][c] x[t + first + j][c], zero outside [0, length).
  void (*convolve)(const T* x, const Sum* kernel, T* y, int64_t length, int64_t channels, int64_t width, int64_t first);
  // Adds the kernel's gradient of one example to kernel_sum [width][channels].
  void (*convolve_kernel_gradient)(const T* x, const T* dy, Sum* kernel_sum, int64_t length, int64_t channels,
                                   int64_t width, int64_t first);
  // One example of a convolution with a kernel for every position, the softmax over j of logits[t][j][c]:
  // y[t][c] = sum_j p[t][j][c] x[t + first + j][c], zero outside [0, length); width at most kLargestDynamicWidth.
  void (*dynamic_convolve)(const T* x, const T* logits, T* y, int64_t length, int64_t channels, int64_t width,
                           int64_t first);
  // Its gradients, given its result; first is at most 0. `ring` [width][channels] is scratch, zero before and after.
  void (*dynamic_convolve_backward)(const T* x, const T* logits, const T* y, const T* dy, T* dx, T* dlogits, Sum* ring,
                                    int64_t length, int64_t channels, int64_t width, int64_t first);
  // into += from, n values.
  void (*add)(const Sum* from, Sum* into, int64_t n);
  // Values first ... first + n - 1 of a draw (layers/row_random.h): `scale` where the 32 bits reach the threshold, else
  // 0.
  void (*random_mask)(T* out, int64_t n, uint64_t key, uint64_t first, uint32_t threshold, Sum scale);
  // low + width * (the 32 bits) / 2^32.
  void (*random_uniform)(Sum* out, int64_t n, uint64_t key, uint64_t first, Sum low, Sum width);
};

// The instruction sets that the loops are compiled for, slowest first.
enum class KernelSet { kBaseline, kAvx2, kAvx512 };
KernelSet FastestKernelSet();  // that this processor can run

// The loops of the fastest set, or of the one that a test asked for. T is float, double or Bf16.
template <typename T>
const Kernels<T>& CpuKernels();

// For tests: all further calls take this set, which must not be above the fastest. Not while kernels run.
void UseKernelSet(KernelSet set);

}  // namespace allometry::trainer
