#include "worker/trainer/layers/ops.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdlib>
#include <type_traits>
#include <vector>

#include "worker/trainer/layers/device_ops.h"

namespace allometry::trainer::ops {
namespace {

constexpr double kNormEpsilon = 1e-6;
constexpr int64_t kGrain = 32768;  // values that are worth a thread of their own

thread_local bool force_aten = false;

bool UsesKernels(const at::Tensor& t) { return UsesCpuKernels(t); }

// Calls f with a null pointer of the kernel's value type: float*, double* or Bf16*.
template <typename F>
auto WithType(const at::Tensor& t, F f) {
  switch (t.scalar_type()) {
    case at::kFloat:
      return f(static_cast<float*>(nullptr));
    case at::kDouble:
      return f(static_cast<double*>(nullptr));
    case at::kBFloat16:
      return f(static_cast<Bf16*>(nullptr));
    default:
      TORCH_CHECK(false, "models compute in float32, bfloat16 or float64, not in ", t.scalar_type());
  }
}

template <typename T>
T* Data(const at::Tensor& t) {
  return t.defined() ? static_cast<T*>(t.data_ptr()) : nullptr;
}

int64_t GrainRows(int64_t row_size) { return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, row_size)); }

// Parts that [0, rows) is divided into, each with partial sums of its own, and f(part, begin, end) over them.
template <typename F>
void ForParts(int64_t rows, int64_t parts, F f) {
  at::parallel_for(0, parts, 1, [&](int64_t from, int64_t to) {
    for (int64_t part = from; part < to; ++part) f(part, rows * part / parts, rows * (part + 1) / parts);
  });
}

int64_t PartsFor(int64_t rows, int64_t row_size) {
  return std::max<int64_t>(1, std::min<int64_t>(at::get_num_threads(), rows * row_size / kGrain));
}

at::Tensor ActivationOf(Activation act, const at::Tensor& u) {
  switch (act) {
    case Activation::kSigmoid:
      return at::sigmoid(u);
    case Activation::kGelu:
      return at::gelu(u, "tanh");
    case Activation::kSilu:
      return at::silu(u);
    default:
      return at::relu(u);
  }
}

at::Tensor ActivationSlope(Activation act, const at::Tensor& u, const at::Tensor& dvalue) {
  switch (act) {
    case Activation::kSigmoid:
      return at::sigmoid_backward(dvalue, at::sigmoid(u));
    case Activation::kGelu:
      return at::gelu_backward(dvalue, u, "tanh");
    case Activation::kSilu:
      return at::silu_backward(dvalue, u);
    default:
      return at::threshold_backward(dvalue, u, 0);
  }
}

at::Tensor Padded(const at::Tensor& x_btc, int64_t width, int64_t first) {
  return at::constant_pad_nd(x_btc, {0, 0, -first, first + width - 1});
}

void CheckSizes(const char* what, const at::Tensor& tensor, at::IntArrayRef sizes) {
  TORCH_CHECK(!tensor.defined() || tensor.sizes() == sizes, what, " is ", tensor.sizes(), ", not ", sizes);
}

// x[., t + shift, .] with zeros from outside.
at::Tensor Shifted(const at::Tensor& x_btc, int64_t shift) {
  if (std::abs(shift) >= x_btc.size(1)) return at::zeros_like(x_btc);
  return at::constant_pad_nd(x_btc, {0, 0, -shift, shift}, 0);
}

}  // namespace

bool UsesCpuKernels(const at::Tensor& t) { return t.is_cpu() && !force_aten; }

const kernels::KernelTable* device::KernelsOf(const at::Tensor& t) {
  return force_aten ? nullptr : kernels::KernelsFor(t);
}

at::ScalarType SumType(at::ScalarType type) { return type == at::kDouble ? at::kDouble : at::kFloat; }

ForceAten::ForceAten() : before_(force_aten) { force_aten = true; }
ForceAten::~ForceAten() { force_aten = before_; }

Normed NormForward(const at::Tensor& x_rd, const at::Tensor& weight_d) {
  if (const auto* table = device::KernelsOf(x_rd)) return device::NormForward(*table, x_rd, weight_d);
  if (!UsesKernels(x_rd)) {
    const at::Tensor wide = Wide(x_rd);
    const at::Tensor scale = wide.square().mean(-1).add_(kNormEpsilon).rsqrt_();
    return {(wide * scale.unsqueeze(-1) * Wide(weight_d)).to(x_rd.scalar_type()), scale};
  }
  const int64_t rows = x_rd.size(0), d = x_rd.size(1);
  Normed out{at::empty_like(x_rd), at::empty({rows}, x_rd.options().dtype(SumType(x_rd.scalar_type())))};
  WithType(x_rd, [&]<typename T>(T*) {
    using Sum = typename Kernels<T>::Sum;
    const T* w = Data<T>(weight_d);
    at::parallel_for(0, rows, GrainRows(d), [&](int64_t from, int64_t to) {
      CpuKernels<T>().norm_forward(Data<T>(x_rd) + from * d, w, Data<T>(out.y_rd) + from * d,
                                   Data<Sum>(out.scale_r) + from, to - from, d, static_cast<Sum>(kNormEpsilon));
    });
  });
  return out;
}

NormGradients NormBackward(const at::Tensor& dy_rd, const at::Tensor& x_rd, const at::Tensor& weight_d,
                           const at::Tensor& scale_r, const at::Tensor& residual_rd) {
  if (const auto* table = device::KernelsOf(x_rd); table && x_rd.size(1) <= kernels::kLargestNormWidth)
    return device::NormBackward(*table, dy_rd, x_rd, weight_d, scale_r, residual_rd);
  const auto type = x_rd.scalar_type();
  if (!UsesKernels(x_rd)) {
    const at::Tensor dy = Wide(dy_rd), normed = Wide(x_rd) * scale_r.unsqueeze(-1), pulled = dy * Wide(weight_d);
    const at::Tensor mean = (pulled * normed).mean(-1, /*keepdim=*/true);
    at::Tensor dx = (pulled - normed * mean) * scale_r.unsqueeze(-1);
    if (residual_rd.defined()) dx = dx + residual_rd;
    return {dx.to(type), (dy * normed).sum(0).to(type)};
  }
  const int64_t rows = x_rd.size(0), d = x_rd.size(1), parts = PartsFor(rows, d);
  const at::Tensor sums = at::zeros({parts, d}, scale_r.options());
  NormGradients out{at::empty_like(x_rd), {}};
  WithType(x_rd, [&]<typename T>(T*) {
    using Sum = typename Kernels<T>::Sum;
    ForParts(rows, parts, [&](int64_t part, int64_t from, int64_t to) {
      const T* residual = residual_rd.defined() ? Data<T>(residual_rd) + from * d : nullptr;
      CpuKernels<T>().norm_backward(Data<T>(dy_rd) + from * d, Data<T>(x_rd) + from * d, Data<T>(weight_d),
                                    Data<Sum>(scale_r) + from, residual, Data<T>(out.dx_rd) + from * d,
                                    Data<Sum>(sums) + part * d, to - from, d);
    });
  });
  out.dweight_d = (parts == 1 ? sums.squeeze(0) : sums.sum(0)).to(type);
  return out;
}

void SoftmaxForward(at::Tensor& scores_nqk, const at::Tensor& bias_hqk, const at::Tensor& mask_bk, int64_t heads) {
  const int64_t n = scores_nqk.size(0), q = scores_nqk.size(1), k = scores_nqk.size(2);
  // The loops read them by pointer, where a wrong length would be another row's values or nobody's memory.
  CheckSizes("the position bias", bias_hqk, {heads, q, k});
  CheckSizes("the padding mask", mask_bk, {n / heads, k});
  if (const auto* table = device::KernelsOf(scores_nqk))
    return device::SoftmaxForward(*table, scores_nqk, bias_hqk, mask_bk, heads);
  if (!UsesKernels(scores_nqk)) {
    at::Tensor wide = Wide(scores_nqk).view({n / heads, heads, q, k});
    if (bias_hqk.defined()) wide = wide + bias_hqk;
    if (mask_bk.defined()) wide = wide + mask_bk.view({n / heads, 1, 1, k});
    scores_nqk.copy_(at::softmax(wide, -1).view({n, q, k}));
    return;
  }
  WithType(scores_nqk, [&]<typename T>(T*) {
    using Sum = typename Kernels<T>::Sum;
    const Sum *bias = Data<Sum>(bias_hqk), *mask = Data<Sum>(mask_bk);
    T* scores = Data<T>(scores_nqk);
    at::parallel_for(0, n * q, GrainRows(k), [&](int64_t from, int64_t to) {
      for (int64_t row = from; row < to; ++row) {
        const int64_t example = row / (heads * q), in_example = row % (heads * q);
        CpuKernels<T>().softmax_forward(scores + row * k, bias ? bias + in_example * k : nullptr,
                                        mask ? mask + example * k : nullptr, k);
      }
    });
  });
}

at::Tensor SoftmaxBackward(const at::Tensor& p_nqk, at::Tensor& dp_nqk, int64_t heads, bool want_bias) {
  if (const auto* table = device::KernelsOf(p_nqk))
    return device::SoftmaxBackward(*table, p_nqk, dp_nqk, heads, want_bias);
  const int64_t n = p_nqk.size(0), q = p_nqk.size(1), k = p_nqk.size(2), batch = n / heads;
  if (!UsesKernels(p_nqk)) {
    const at::Tensor p = Wide(p_nqk), dp = Wide(dp_nqk);
    const at::Tensor ds = p * (dp - (p * dp).sum(-1, /*keepdim=*/true));
    dp_nqk.copy_(ds);
    return want_bias ? ds.view({batch, heads, q, k}).sum(0) : at::Tensor();
  }
  at::Tensor bias_sum;
  if (want_bias) bias_sum = at::zeros({heads, q, k}, p_nqk.options().dtype(SumType(p_nqk.scalar_type())));
  WithType(p_nqk, [&]<typename T>(T*) {
    using Sum = typename Kernels<T>::Sum;
    // A thread takes the same query of all examples, so that it alone adds to that row of the bias.
    at::parallel_for(0, heads * q, GrainRows(batch * k), [&](int64_t from, int64_t to) {
      for (int64_t row = from; row < to; ++row)
        for (int64_t b = 0; b < batch; ++b) {
          const int64_t at = (b * heads * q + row) * k;
          CpuKernels<T>().softmax_backward(Data<T>(p_nqk) + at, Data<T>(dp_nqk) + at,
                                           want_bias ? Data<Sum>(bias_sum) + row * k : nullptr, k);
        }
    });
  });
  return bias_sum;
}

at::Tensor CrossEntropy(at::Tensor& logits_nv, const at::Tensor& targets_n, bool gradient) {
  if (const auto* table = device::KernelsOf(logits_nv))
    return device::CrossEntropy(*table, logits_nv, targets_n, gradient);
  const int64_t n = logits_nv.size(0), v = logits_nv.size(1);
  if (!UsesKernels(logits_nv)) {
    const at::Tensor log_p = at::log_softmax(Wide(logits_nv), -1), targets = targets_n.unsqueeze(-1);
    const at::Tensor counts = targets != 0;
    if (gradient) logits_nv.copy_((log_p.exp() - at::zeros_like(log_p).scatter_(-1, targets, 1)) * counts);
    return (-log_p.gather(-1, targets)).mul_(counts).squeeze(-1);
  }
  const at::Tensor nll = at::empty({n}, logits_nv.options().dtype(SumType(logits_nv.scalar_type())));
  WithType(logits_nv, [&]<typename T>(T*) {
    using Sum = typename Kernels<T>::Sum;
    const int64_t* targets = targets_n.const_data_ptr<int64_t>();
    at::parallel_for(0, n, GrainRows(v), [&](int64_t from, int64_t to) {
      for (int64_t row = from; row < to; ++row) {
        T* logits = Data<T>(logits_nv) + row * v;
        const int64_t target = targets[row];
        TORCH_CHECK(target >= 0 && target < v, "target ", target, " is outside the vocabulary of ", v);
        if (target != 0) {
          Data<Sum>(nll)[row] = CpuKernels<T>().cross_entropy(logits, target, v, gradient);
          continue;
        }
        Data<Sum>(nll)[row] = 0;
        if (gradient) std::fill(logits, logits + v, T{});
      }
    });
  });
  return nll;
}

void ReluForward(at::Tensor& x, const at::Tensor& mask) {
  if (const auto* table = device::KernelsOf(x)) return device::ReluForward(*table, x, mask);
  x.relu_();
  if (mask.defined()) x.mul_(mask);
}

void ReluBackward(at::Tensor& dy, const at::Tensor& y, const at::Tensor& mask) {
  if (const auto* table = device::KernelsOf(dy)) return device::ReluBackward(*table, dy, y, mask);
  if (mask.defined()) dy.mul_(mask);
  at::threshold_backward_out(dy, dy, y, 0);  // what was dropped is 0 in both
}

at::Tensor GateForward(Activation act, const at::Tensor& u_rc, const at::Tensor& v_rc, const at::Tensor& mask_rc) {
  if (const auto* table = device::KernelsOf(u_rc)) return device::GateForward(*table, act, u_rc, v_rc, mask_rc);
  if (mask_rc.defined()) return GateForward(act, u_rc, v_rc).mul_(mask_rc);
  if (!UsesKernels(u_rc)) return (ActivationOf(act, Wide(u_rc)) * Wide(v_rc)).to(u_rc.scalar_type());
  const int64_t rows = u_rc.size(0), columns = u_rc.size(1), stride = u_rc.stride(0);
  TORCH_CHECK(v_rc.stride(0) == stride && u_rc.stride(1) == 1 && v_rc.stride(1) == 1, "u and v differ in layout");
  const at::Tensor out = at::empty({rows, columns}, u_rc.options());
  WithType(u_rc, [&]<typename T>(T*) {
    at::parallel_for(0, rows, GrainRows(columns), [&](int64_t from, int64_t to) {
      CpuKernels<T>().gate_forward(act, Data<T>(u_rc) + from * stride, Data<T>(v_rc) + from * stride, stride,
                                   Data<T>(out) + from * columns, to - from, columns);
    });
  });
  return out;
}

void GateBackward(Activation act, const at::Tensor& u_rc, const at::Tensor& v_rc, const at::Tensor& dout_rc,
                  at::Tensor du_rc, at::Tensor dv_rc, const at::Tensor& mask_rc) {
  if (const auto* table = device::KernelsOf(u_rc))
    return device::GateBackward(*table, act, u_rc, v_rc, dout_rc, du_rc, dv_rc, mask_rc);
  if (mask_rc.defined()) dout_rc.mul_(mask_rc);
  if (!UsesKernels(u_rc)) {
    const at::Tensor u = Wide(u_rc), dout = Wide(dout_rc);
    du_rc.copy_(ActivationSlope(act, u, dout * Wide(v_rc)));
    dv_rc.copy_(dout * ActivationOf(act, u));
    return;
  }
  const int64_t rows = u_rc.size(0), columns = u_rc.size(1), stride = u_rc.stride(0);
  WithType(u_rc, [&]<typename T>(T*) {
    at::parallel_for(0, rows, GrainRows(columns), [&](int64_t from, int64_t to) {
      CpuKernels<T>().gate_backward(act, Data<T>(u_rc) + from * stride, Data<T>(v_rc) + from * stride,
                                    Data<T>(dout_rc) + from * columns, Data<T>(du_rc) + from * stride,
                                    Data<T>(dv_rc) + from * stride, stride, to - from, columns);
    });
  });
}

at::Tensor Convolve(const at::Tensor& x_btc, const at::Tensor& kernel_wc, int64_t first) {
  if (const auto* table = device::KernelsOf(x_btc)) return device::Convolve(*table, x_btc, kernel_wc, first, false);
  const int64_t batch = x_btc.size(0), length = x_btc.size(1), channels = x_btc.size(2), width = kernel_wc.size(0);
  if (!UsesKernels(x_btc)) {
    at::Tensor sum = at::zeros_like(Wide(x_btc));
    for (int64_t j = 0; j < width; ++j) sum = sum + Wide(Shifted(x_btc, first + j)) * kernel_wc[j];
    return sum.to(x_btc.scalar_type());
  }
  const at::Tensor y = at::empty_like(x_btc);
  WithType(x_btc, [&]<typename T>(T*) {
    using Sum = typename Kernels<T>::Sum;
    at::parallel_for(0, batch, GrainRows(length * channels), [&](int64_t from, int64_t to) {
      for (int64_t b = from; b < to; ++b)
        CpuKernels<T>().convolve(Data<T>(x_btc) + b * length * channels, Data<Sum>(kernel_wc),
                                 Data<T>(y) + b * length * channels, length, channels, width, first);
    });
  });
  return y;
}

// dx[t] = sum_j kernel[j] dy[t - first - j]: the same convolution with the taps in the opposite order.
at::Tensor ConvolveInputGradient(const at::Tensor& dy_btc, const at::Tensor& kernel_wc, int64_t first) {
  const int64_t opposite = -first - (kernel_wc.size(0) - 1);
  if (const auto* table = device::KernelsOf(dy_btc)) return device::Convolve(*table, dy_btc, kernel_wc, opposite, true);
  return Convolve(dy_btc, kernel_wc.flip(0).contiguous(), opposite);
}

at::Tensor ConvolveKernelGradient(const at::Tensor& x_btc, const at::Tensor& dy_btc, int64_t width, int64_t first) {
  if (const auto* table = device::KernelsOf(x_btc))
    return device::ConvolveKernelGradient(*table, x_btc, dy_btc, width, first);
  const int64_t batch = x_btc.size(0), length = x_btc.size(1), channels = x_btc.size(2);
  if (!UsesKernels(x_btc)) {
    std::vector<at::Tensor> rows;
    for (int64_t j = 0; j < width; ++j)
      rows.push_back((Wide(Shifted(x_btc, first + j)) * Wide(dy_btc)).sum(at::IntArrayRef{0, 1}));
    return at::stack(rows);
  }
  const int64_t parts = std::min(batch, PartsFor(batch, length * channels));
  const at::Tensor sums = at::zeros({parts, width, channels}, x_btc.options().dtype(SumType(x_btc.scalar_type())));
  WithType(x_btc, [&]<typename T>(T*) {
    using Sum = typename Kernels<T>::Sum;
    ForParts(batch, parts, [&](int64_t part, int64_t from, int64_t to) {
      for (int64_t b = from; b < to; ++b)
        CpuKernels<T>().convolve_kernel_gradient(
            Data<T>(x_btc) + b * length * channels, Data<T>(dy_btc) + b * length * channels,
            Data<Sum>(sums) + part * width * channels, length, channels, width, first);
    });
  });
  return parts == 1 ? sums.squeeze(0) : sums.sum(0);
}

namespace {

bool KernelForEachChannel(const at::Tensor& x_btc, const at::Tensor& logits_btwk) {
  return x_btc.size(2) == logits_btwk.size(3) && logits_btwk.size(2) <= kLargestDynamicWidth;
}

// One tap at a time, so that no product of all taps with all channels is ever stored.
at::Tensor DynamicConvolveByTaps(const at::Tensor& x_btc, const at::Tensor& logits_btwk, int64_t first) {
  const int64_t length = x_btc.size(1), width = logits_btwk.size(2), kernels = logits_btwk.size(3);
  const at::Tensor padded = Padded(x_btc, width, first), p = at::softmax(Wide(logits_btwk), 2);
  const at::Tensor sum = at::zeros_like(ByKernel(x_btc, kernels), SumType(x_btc.scalar_type()));
  for (int64_t j = 0; j < width; ++j)
    sum.addcmul_(Wide(ByKernel(padded.slice(1, j, j + length), kernels)), p.select(2, j).unsqueeze(-1));
  return sum.to(x_btc.scalar_type()).view(x_btc.sizes());
}

// With r_j = p_j dy: dx[t + first + j] += r_j, and through the softmax dlogits_j = r_j (x[t + first + j] - y), since
// the mean of dp under p is dy y.
DynamicConvolutionGradients DynamicGradientsByTaps(const at::Tensor& x_btc, const at::Tensor& logits_btwk,
                                                   const at::Tensor& y_btc, const at::Tensor& dy_btc, int64_t first) {
  const int64_t length = x_btc.size(1), width = logits_btwk.size(2), kernels = logits_btwk.size(3);
  const at::Tensor padded = Padded(x_btc, width, first), p = at::softmax(Wide(logits_btwk), 2);
  const at::Tensor dy = Wide(ByKernel(dy_btc, kernels)), y = Wide(ByKernel(y_btc, kernels));
  const at::Tensor dlogits = at::empty_like(logits_btwk), dpadded = at::zeros(padded.sizes(), dy.options());
  for (int64_t j = 0; j < width; ++j) {
    const at::Tensor r = dy * p.select(2, j).unsqueeze(-1);
    const at::Tensor x = Wide(ByKernel(padded.slice(1, j, j + length), kernels));
    ByKernel(dpadded.slice(1, j, j + length), kernels).add_(r);
    dlogits.select(2, j).copy_((r * (x - y)).sum(-1));
  }
  return {dpadded.slice(1, -first, length - first).to(x_btc.scalar_type()), dlogits};
}

}  // namespace

at::Tensor DynamicConvolve(const at::Tensor& x_btc, const at::Tensor& logits_btwk, int64_t first) {
  if (const auto* table = device::KernelsOf(x_btc)) return device::DynamicConvolve(*table, x_btc, logits_btwk, first);
  if (!UsesKernels(x_btc) || !KernelForEachChannel(x_btc, logits_btwk))
    return DynamicConvolveByTaps(x_btc, logits_btwk, first);
  const int64_t batch = x_btc.size(0), length = x_btc.size(1), channels = x_btc.size(2), width = logits_btwk.size(2);
  const int64_t example = length * channels;
  const at::Tensor y = at::empty_like(x_btc);
  WithType(x_btc, [&]<typename T>(T*) {
    at::parallel_for(0, batch, GrainRows(width * example), [&](int64_t from, int64_t to) {
      for (int64_t b = from; b < to; ++b)
        CpuKernels<T>().dynamic_convolve(Data<T>(x_btc) + b * example, Data<T>(logits_btwk) + b * width * example,
                                         Data<T>(y) + b * example, length, channels, width, first);
    });
  });
  return y;
}

DynamicConvolutionGradients DynamicConvolveBackward(const at::Tensor& x_btc, const at::Tensor& logits_btwk,
                                                    const at::Tensor& y_btc, const at::Tensor& dy_btc, int64_t first) {
  TORCH_CHECK(first <= 0, "a dynamic convolution whose first tap lies ahead has no gradient");
  if (const auto* table = device::KernelsOf(x_btc))
    return device::DynamicConvolveBackward(*table, x_btc, logits_btwk, y_btc, dy_btc, first);
  if (!UsesKernels(x_btc) || !KernelForEachChannel(x_btc, logits_btwk))
    return DynamicGradientsByTaps(x_btc, logits_btwk, y_btc, dy_btc, first);
  const int64_t batch = x_btc.size(0), length = x_btc.size(1), channels = x_btc.size(2), width = logits_btwk.size(2);
  const int64_t example = length * channels;
  const DynamicConvolutionGradients out{at::empty_like(x_btc), at::empty_like(logits_btwk)};
  WithType(x_btc, [&]<typename T>(T*) {
    using Sum = typename Kernels<T>::Sum;
    at::parallel_for(0, batch, GrainRows(width * example), [&](int64_t from, int64_t to) {
      std::vector<Sum> ring(static_cast<size_t>(width * channels));
      for (int64_t b = from; b < to; ++b)
        CpuKernels<T>().dynamic_convolve_backward(
            Data<T>(x_btc) + b * example, Data<T>(logits_btwk) + b * width * example, Data<T>(y_btc) + b * example,
            Data<T>(dy_btc) + b * example, Data<T>(out.dx_btc) + b * example,
            Data<T>(out.dlogits_btwk) + b * width * example, ring.data(), length, channels, width, first);
    });
  });
  return out;
}

}  // namespace allometry::trainer::ops
