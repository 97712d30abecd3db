#include "worker/trainer/layers/row_random.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "worker/trainer/layers/kernels.h"
#include "worker/trainer/layers/ops.h"

namespace allometry::trainer {
namespace {

constexpr int64_t kGrain = 65536;  // values that are worth a thread of their own

thread_local RowRandom current;

uint64_t SplitMix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint64_t NextKey() { return SplitMix(current.key ^ SplitMix(++current.draws)); }

// A tensor seen as [outer, rows, inner]; value (o, r, i) is number ((first_row + r) * outer + o) * inner + i.
struct Layout {
  int64_t outer, rows, inner;
};

Layout LayoutOf(at::IntArrayRef sizes, int64_t outer) {
  const int64_t values = c10::multiply_integers(sizes);
  TORCH_CHECK(values % (outer * current.rows) == 0, "a random tensor of ", sizes, " has no rows for ", current.rows,
              " sequences");
  return {outer, current.rows, values / (outer * current.rows)};
}

// fill(offset in the tensor, count, number of the first value) over stretches of consecutive numbers.
template <typename F>
void ForStretches(const Layout& layout, F fill) {
  const int64_t first = current.first_row;
  if (layout.inner == 0) return;
  const int64_t length = layout.outer == 1 ? layout.rows * layout.inner : layout.inner;
  const int64_t stretches = layout.outer == 1 ? 1 : layout.outer * layout.rows;
  const int64_t parts = (length + kGrain - 1) / kGrain;
  at::parallel_for(0, stretches * parts, std::max<int64_t>(1, kGrain / length), [&](int64_t from, int64_t to) {
    for (int64_t part = from; part < to; ++part) {
      const int64_t stretch = part / parts, begin = part % parts * kGrain;
      const int64_t o = stretch / layout.rows, r = stretch % layout.rows;
      const int64_t number = ((first + r) * layout.outer + o) * layout.inner + begin;
      fill(stretch * length + begin, std::min(kGrain, length - begin), static_cast<uint64_t>(number));
    }
  });
}

template <typename T>
void FillMask(const at::Tensor& mask, const Layout& layout, uint64_t key, uint32_t threshold, double scale) {
  auto* values = static_cast<T*>(mask.data_ptr());
  using Sum = typename Kernels<T>::Sum;
  ForStretches(layout, [&](int64_t at, int64_t count, uint64_t number) {
    CpuKernels<T>().random_mask(values + at, count, key, number, threshold, static_cast<Sum>(scale));
  });
}

template <typename T>
void FillUniform(const at::Tensor& out, const Layout& layout, uint64_t key, double low, double high) {
  auto* values = out.mutable_data_ptr<T>();
  ForStretches(layout, [&](int64_t at, int64_t count, uint64_t number) {
    CpuKernels<T>().random_uniform(values + at, count, key, number, static_cast<T>(low), static_cast<T>(high - low));
  });
}

int64_t Signed(uint64_t bits) { return static_cast<int64_t>(bits); }

at::Tensor ShiftedRight(const at::Tensor& x, int64_t bits) {
  return at::bitwise_and(at::bitwise_right_shift(x, bits), (int64_t{1} << (64 - bits)) - 1);
}

// The same 32 bits by tensor operations, as int64 between 0 and 2^32 - 1.
at::Tensor RandomBits(const Layout& layout, uint64_t key, const at::Device& device) {
  const auto integers = at::TensorOptions(device).dtype(at::kLong);
  const at::Tensor row = at::arange(current.first_row, current.first_row + layout.rows, integers).view({1, -1, 1});
  const at::Tensor number = (row * layout.outer + at::arange(layout.outer, integers).view({-1, 1, 1})) * layout.inner +
                            at::arange(layout.inner, integers);
  at::Tensor x = ShiftedRight(number, 1).mul_(Signed(0x9e3779b97f4a7c15u)).add_(Signed(key + 0x9e3779b97f4a7c15u));
  x = at::bitwise_xor(x, ShiftedRight(x, 30)).mul_(Signed(0xbf58476d1ce4e5b9u));
  x = at::bitwise_xor(x, ShiftedRight(x, 27)).mul_(Signed(0x94d049bb133111ebu));
  x = at::bitwise_xor(x, ShiftedRight(x, 31));
  const at::Tensor upper = at::bitwise_and(number, 1).to(at::kBool);
  return at::where(upper, ShiftedRight(x, 32), at::bitwise_and(x, Signed(0xffffffffu)));
}

}  // namespace

RowRandom CurrentRowRandom() { return current; }
void SetRowRandom(const RowRandom& state) { current = state; }

void BeginRows(uint64_t seed, int64_t step, int64_t first_row, int64_t rows) {
  current = {SplitMix(SplitMix(seed) ^ static_cast<uint64_t>(step)), first_row, rows, 0};
}

at::Tensor DropoutMask(at::IntArrayRef sizes, const at::TensorOptions& options, double p, int64_t outer) {
  if (p == 0) return {};
  at::NoGradGuard no_grad;
  const Layout layout = LayoutOf(sizes, outer);
  const uint64_t key = NextKey();
  const auto threshold = static_cast<uint32_t>(std::lround(std::ldexp(p, 32)));
  const double scale = 1 / (1 - p);
  const at::Tensor mask = at::empty(sizes, options.requires_grad(false).memory_format(at::MemoryFormat::Contiguous));
  if (!ops::UsesCpuKernels(mask))
    return mask.copy_(RandomBits(layout, key, mask.device()).ge(Signed(threshold)).view(sizes)).mul_(scale);
  if (mask.scalar_type() == at::kFloat) FillMask<float>(mask, layout, key, threshold, scale);
  if (mask.scalar_type() == at::kDouble) FillMask<double>(mask, layout, key, threshold, scale);
  if (mask.scalar_type() == at::kBFloat16) FillMask<Bf16>(mask, layout, key, threshold, scale);
  return mask;
}

at::Tensor Drop(const at::Tensor& x, double p, bool training, int64_t outer) {
  return training && p > 0 ? x * DropoutMask(x.sizes(), x.options(), p, outer) : x;
}

at::Tensor RandomUniform(at::IntArrayRef sizes, const at::TensorOptions& options, double low, double high) {
  at::NoGradGuard no_grad;
  const Layout layout = LayoutOf(sizes, 1);
  const uint64_t key = NextKey();
  const at::Tensor out = at::empty(sizes, options.requires_grad(false).memory_format(at::MemoryFormat::Contiguous));
  if (!ops::UsesCpuKernels(out)) {
    const at::Tensor bits = RandomBits(layout, key, out.device()).view(sizes).to(out.scalar_type());
    return out.copy_(bits).mul_(std::ldexp(high - low, -32)).add_(low);
  }
  if (out.scalar_type() == at::kDouble)
    FillUniform<double>(out, layout, key, low, high);
  else
    FillUniform<float>(out, layout, key, low, high);
  return out;
}

}  // namespace allometry::trainer
