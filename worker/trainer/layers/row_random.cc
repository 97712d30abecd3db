#include "worker/trainer/layers/row_random.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "worker/trainer/layers/device_ops.h"
#include "worker/trainer/layers/kernels.h"
#include "worker/trainer/layers/ops.h"

namespace allometry::trainer {
namespace {

constexpr int64_t kMaskGrain = 65536;  // values that are worth a thread of their own

thread_local RowRandom current;

uint64_t SplitMix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// What one draw hashes: SplitMix(key of the step ^ mixed).
struct Draw {
  uint64_t mixed = 0;
  uint64_t key() const {
    TORCH_CHECK(!current.device_key.defined(), "the step's key lies on a device, where only kernels can draw from it");
    return SplitMix(current.key ^ mixed);
  }
};
Draw NextDraw() { return {SplitMix(++current.draws)}; }

// With the sizes that follow from the tensor's. Value (o, k, r, i) is number
// ((first row of block k + r) * of + first + o) * inner + i.
struct Layout : RowLayout {
  int64_t rows = 1, inner = 0;
  int64_t FirstRow(int64_t block) const { return current.first_row + (block - own_block) * block_rows; }
};

Layout LayoutOf(at::IntArrayRef sizes, const RowLayout& by) {
  Layout layout{by, current.rows, 0};
  const int64_t values = c10::multiply_integers(sizes), rows = by.outer * by.blocks * current.rows;
  TORCH_CHECK(values % rows == 0, "a random tensor of ", sizes, " has no rows for ", current.rows, " sequences");
  layout.inner = values / rows;
  return layout;
}

// fill(offset in the tensor, count, number of the first value) over stretches of consecutive numbers.
template <typename F>
void ForStretches(const Layout& layout, F fill) {
  if (layout.inner == 0) return;
  const int64_t joined = layout.of == 1 ? layout.rows : 1;  // rows whose numbers follow one another
  const int64_t length = joined * layout.inner, rows = layout.rows / joined;
  const int64_t stretches = layout.outer * layout.blocks * rows, parts = (length + kMaskGrain - 1) / kMaskGrain;
  const int64_t first_of_block_0 = layout.FirstRow(0);
  at::parallel_for(0, stretches * parts, std::max<int64_t>(1, kMaskGrain / length), [&](int64_t from, int64_t to) {
    for (int64_t part = from; part < to; ++part) {
      const int64_t stretch = part / parts, begin = part % parts * kMaskGrain;
      const int64_t row = stretch % rows, block = stretch / rows % layout.blocks, o = stretch / rows / layout.blocks;
      const int64_t batch_row = first_of_block_0 + block * layout.block_rows + row;
      const int64_t number = (batch_row * layout.of + layout.first + o) * layout.inner + begin;
      fill(stretch * length + begin, std::min(kMaskGrain, length - begin), static_cast<uint64_t>(number));
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

kernels::RandomRows RowsOf(const Layout& layout, const Draw& draw) {
  const at::Tensor& on_device = current.device_key;
  return {.key = on_device.defined() ? draw.mixed : draw.key(),
          .step_key = static_cast<const uint64_t*>(kernels::Memory(on_device)),
          .outer = layout.outer,
          .blocks = layout.blocks,
          .rows = layout.rows,
          .inner = layout.inner,
          .first_row = layout.FirstRow(0),
          .block_rows = layout.block_rows,
          .first = layout.first,
          .of = layout.of};
}

int64_t Signed(uint64_t bits) { return static_cast<int64_t>(bits); }

at::Tensor ShiftedRight(const at::Tensor& x, int64_t bits) {
  return at::bitwise_and(at::bitwise_right_shift(x, bits), (int64_t{1} << (64 - bits)) - 1);
}

// The same 32 bits by tensor operations, as int64 between 0 and 2^32 - 1.
at::Tensor RandomBits(const Layout& layout, uint64_t key, const at::Device& device) {
  const auto integers = at::TensorOptions(device).dtype(at::kLong);
  const at::Tensor block = at::arange(layout.blocks, integers).mul_(layout.block_rows).view({-1, 1, 1});
  const at::Tensor row = block + at::arange(layout.rows, integers).add_(layout.FirstRow(0)).view({-1, 1});
  const at::Tensor outer = at::arange(layout.outer, integers).add_(layout.first).view({-1, 1, 1, 1});
  const at::Tensor number = (row * layout.of + outer) * layout.inner + at::arange(layout.inner, integers);
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
  current = {.key = static_cast<uint64_t>(StepKey(seed, step)), .first_row = first_row, .rows = rows};
}

void BeginRows(const at::Tensor& device_key, int64_t first_row, int64_t rows) {
  current = {.device_key = device_key, .first_row = first_row, .rows = rows};
}

int64_t StepKey(uint64_t seed, int64_t step) { return Signed(SplitMix(SplitMix(seed) ^ static_cast<uint64_t>(step))); }

RowDraw NextRowDraw(int64_t examples) {
  TORCH_CHECK(examples % current.rows == 0, "a batch of ", examples, " does not divide among ", current.rows,
              " sequences");
  return {current.key, current.device_key, ++current.draws, current.first_row * (examples / current.rows)};
}

at::Tensor DropoutMask(at::IntArrayRef sizes, const at::TensorOptions& options, double p, const RowLayout& by) {
  if (p == 0) return {};
  at::NoGradGuard no_grad;
  const Layout layout = LayoutOf(sizes, by);
  const Draw draw = NextDraw();
  const auto threshold = static_cast<uint32_t>(std::lround(std::ldexp(p, 32)));
  const double scale = 1 / (1 - p);
  const at::Tensor mask = at::empty(sizes, options.requires_grad(false).memory_format(at::MemoryFormat::Contiguous));
  if (const auto* table = ops::device::KernelsOf(mask)) {
    kernels::Run(*table, table->random_mask, mask,
                 {.where = RowsOf(layout, draw),
                  .out = kernels::Memory(mask),
                  .threshold = threshold,
                  .scale = static_cast<float>(scale)});
    return mask;
  }
  if (!ops::UsesCpuKernels(mask))
    return mask.copy_(RandomBits(layout, draw.key(), mask.device()).ge(Signed(threshold)).view(sizes)).mul_(scale);
  if (mask.scalar_type() == at::kFloat) FillMask<float>(mask, layout, draw.key(), threshold, scale);
  if (mask.scalar_type() == at::kDouble) FillMask<double>(mask, layout, draw.key(), threshold, scale);
  if (mask.scalar_type() == at::kBFloat16) FillMask<Bf16>(mask, layout, draw.key(), threshold, scale);
  return mask;
}

at::Tensor Drop(const at::Tensor& x, double p, bool training, const RowLayout& by) {
  return training && p > 0 ? x * DropoutMask(x.sizes(), x.options(), p, by) : x;
}

at::Tensor RandomUniform(at::IntArrayRef sizes, const at::TensorOptions& options, double low, double high) {
  at::NoGradGuard no_grad;
  const Layout layout = LayoutOf(sizes, {});
  const Draw draw = NextDraw();
  const at::Tensor out = at::empty(sizes, options.requires_grad(false).memory_format(at::MemoryFormat::Contiguous));
  if (const auto* table = ops::device::KernelsOf(out); table && out.scalar_type() == at::kFloat) {
    kernels::OnStreamOf(*table, out, [&](kernels::Stream stream) {
      table->random_uniform(stream, {.where = RowsOf(layout, draw),
                                     .out = kernels::Floats(out),
                                     .low = static_cast<float>(low),
                                     .width = static_cast<float>(high - low)});
    });
    return out;
  }
  if (!ops::UsesCpuKernels(out)) {
    const at::Tensor bits = RandomBits(layout, draw.key(), out.device()).view(sizes).to(out.scalar_type());
    return out.copy_(bits).mul_(std::ldexp(high - low, -32)).add_(low);
  }
  if (out.scalar_type() == at::kDouble)
    FillUniform<double>(out, layout, draw.key(), low, high);
  else
    FillUniform<float>(out, layout, draw.key(), low, high);
  return out;
}

}  // namespace allometry::trainer
