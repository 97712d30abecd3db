// Compiled once for each instruction set, which ALLO_KERNEL_SET names (see models/CMakeLists.txt). It calls no inline
// function of a library: the linker keeps one copy of those for the whole program, and it could be this one, in
// instructions that another processor lacks.
#include "worker/trainer/layers/simd.h"

namespace allometry::trainer::ALLO_KERNEL_SET {
namespace {

template <typename T>
void NormForward(const T* x, const T* w, T* y, typename Lanes<T>::Sum* r, int64_t rows, int64_t d,
                 typename Lanes<T>::Sum epsilon) {
  using L = Lanes<T>;
  for (int64_t row = 0; row < rows; ++row, x += d, y += d) {
    typename L::V squares = {};
    ForVectors<L::kCount>(d, [&](int64_t i, int64_t n) {
      const typename L::V v = Load(x + i, n);
      squares += v * v;
    });
    const typename L::Sum scale = 1 / SquareRoot(TotalOf(squares) / static_cast<typename L::Sum>(d) + epsilon);
    r[row] = scale;
    ForVectors<L::kCount>(d, [&](int64_t i, int64_t n) { Store(y + i, Load(x + i, n) * scale * Load(w + i, n), n); });
  }
}

template <typename T>
void NormBackward(const T* dy, const T* x, const T* w, const typename Lanes<T>::Sum* r, const T* residual, T* dx,
                  typename Lanes<T>::Sum* dw_sum, int64_t rows, int64_t d) {
  using L = Lanes<T>;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = row * d;
    const typename L::Sum scale = r[row];
    typename L::V products = {};
    ForVectors<L::kCount>(d, [&](int64_t i, int64_t n) {
      const typename L::V g = Load(dy + at + i, n), v = Load(x + at + i, n);
      products += g * Load(w + i, n) * v;
      Store(dw_sum + i, Load(dw_sum + i, n) + g * v * scale, n);
    });
    const typename L::Sum pull = TotalOf(products) * scale * scale * scale / static_cast<typename L::Sum>(d);
    ForVectors<L::kCount>(d, [&](int64_t i, int64_t n) {
      typename L::V g = Load(dy + at + i, n) * Load(w + i, n) * scale - Load(x + at + i, n) * pull;
      if (residual) g += Load(residual + at + i, n);
      Store(dx + at + i, g, n);
    });
  }
}

template <typename T>
void SoftmaxForward(T* scores, const typename Lanes<T>::Sum* bias, const typename Lanes<T>::Sum* mask, int64_t n) {
  using L = Lanes<T>;
  constexpr int64_t kChunk = 4096;  // scores of longer rows are added up twice instead of being kept
  typename L::Sum kept[kChunk];
  const auto score = [&](int64_t i, int64_t count) __attribute__((always_inline)) {
    typename L::V v = Load(scores + i, count, -__builtin_inff());
    if (bias) v += Load(bias + i, count);
    if (mask) v += Load(mask + i, count);
    return v;
  };
  const bool keep = n <= kChunk - L::kCount;
  typename L::V largest = typename L::V{} - __builtin_inff();
  ForVectors<L::kCount>(
      n, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        const typename L::V v = score(i, count);
        if (keep) StoreFrom(kept + i, v);
        largest = Maximum(v, largest);
      });
  const typename L::Sum top = MaximumOf(largest);
  typename L::V sums = {};
  ForVectors<L::kCount>(
      n, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        typename L::V v;
        if (keep) {
          LoadInto(kept + i, v);
          v = Exp(v - top);
          StoreFrom(kept + i, v);
        } else {
          v = Exp(score(i, count) - top);
        }
        sums += v;
      });
  const typename L::Sum share = 1 / TotalOf(sums);
  ForVectors<L::kCount>(
      n, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
        typename L::V v;
        if (keep)
          LoadInto(kept + i, v);
        else
          v = Exp(score(i, count) - top);
        Store(scores + i, v * share, count);
      });
}

template <typename T>
void SoftmaxBackward(const T* p, T* dp, typename Lanes<T>::Sum* bias_sum, int64_t n) {
  using L = Lanes<T>;
  typename L::V dots = {};
  ForVectors<L::kCount>(n, [&](int64_t i, int64_t count) { dots += Load(p + i, count) * Load(dp + i, count); });
  const typename L::Sum mean = TotalOf(dots);
  ForVectors<L::kCount>(n, [&](int64_t i, int64_t count) {
    const typename L::V g = Load(p + i, count) * (Load(dp + i, count) - mean);
    Store(dp + i, g, count);
    if (bias_sum) Store(bias_sum + i, Load(bias_sum + i, count) + g, count);
  });
}

template <typename T>
typename Lanes<T>::Sum CrossEntropy(T* logits, int64_t target, int64_t n, bool gradient) {
  using L = Lanes<T>;
  const typename L::Sum lowest = -__builtin_inff();
  typename L::V largest = typename L::V{} + lowest;
  ForVectors<L::kCount>(n,
                        [&](int64_t i, int64_t count) { largest = Maximum(Load(logits + i, count, lowest), largest); });
  const typename L::Sum top = MaximumOf(largest);
  typename L::V sums = {};
  ForVectors<L::kCount>(n, [&](int64_t i, int64_t count) { sums += Exp(Load(logits + i, count, lowest) - top); });
  const typename L::Sum log_sum = top + Log(TotalOf(sums));
  const typename L::Sum target_logit = ValueOf(logits + target), nll = log_sum - target_logit;
  if (gradient) {
    ForVectors<L::kCount>(
        n, [&](int64_t i, int64_t count) { Store(logits + i, Exp(Load(logits + i, count) - log_sum), count); });
    typename L::V at_target = {};
    at_target[0] = target_logit - log_sum;
    Store(logits + target, Exp(at_target) - 1, 1);
  }
  return nll;
}

template <typename V>
struct Gate {
  V value, slope;
};

template <typename V>
ALLO_INLINE V Sigmoid(V u) {
  return 1 / (1 + Exp(-u));
}

template <typename V>
ALLO_INLINE Gate<V> Evaluate(Activation act, V u) {
  using Sum = decltype(u[0] + 0);
  switch (act) {
    case Activation::kSigmoid: {
      const V s = Sigmoid(u);
      return {s, s * (1 - s)};
    }
    case Activation::kSilu: {
      const V s = Sigmoid(u);
      return {u * s, s + u * s * (1 - s)};
    }
    case Activation::kGelu: {  // u/2 (1 + tanh z) = u sigmoid(2 z)
      const Sum c = static_cast<Sum>(0.79788456080286535588), a = static_cast<Sum>(0.044715);
      const V s = Sigmoid(2 * c * (u + a * u * u * u));
      return {u * s, s + u * s * (1 - s) * 2 * c * (1 + 3 * a * u * u)};
    }
    default: {
      const V zero = {};
      return {u > zero ? u : zero, u > zero ? zero + 1 : zero};
    }
  }
}

template <typename T>
void GateForward(Activation act, const T* u, const T* v, int64_t stride, T* out, int64_t rows, int64_t columns) {
  using L = Lanes<T>;
  for (int64_t row = 0; row < rows; ++row, u += stride, v += stride, out += columns)
    ForVectors<L::kCount>(columns, [&](int64_t i, int64_t n) {
      Store(out + i, Evaluate(act, Load(u + i, n)).value * Load(v + i, n), n);
    });
}

template <typename T>
void GateBackward(Activation act, const T* u, const T* v, const T* dout, T* du, T* dv, int64_t stride, int64_t rows,
                  int64_t columns) {
  using L = Lanes<T>;
  for (int64_t row = 0; row < rows; ++row, u += stride, v += stride, du += stride, dv += stride, dout += columns)
    ForVectors<L::kCount>(columns, [&](int64_t i, int64_t n) {
      const typename L::V g = Load(dout + i, n);
      const auto gate = Evaluate(act, Load(u + i, n));
      Store(du + i, g * Load(v + i, n) * gate.slope, n);
      Store(dv + i, g * gate.value, n);
    });
}

template <typename T>
void Convolve(const T* x, const typename Lanes<T>::Sum* kernel, T* y, int64_t length, int64_t channels, int64_t width,
              int64_t first) {
  using L = Lanes<T>;
  for (int64_t t = 0; t < length; ++t) {
    const int64_t from = t + first < 0 ? -(t + first) : 0;
    const int64_t to = t + first + width > length ? length - t - first : width;
    ForVectors<L::kCount>(channels, [&](int64_t c, int64_t n) {
      typename L::V sum = {};
      for (int64_t j = from; j < to; ++j)
        sum += Load(kernel + j * channels + c, n) * Load(x + (t + first + j) * channels + c, n);
      Store(y + t * channels + c, sum, n);
    });
  }
}

template <typename T>
void ConvolveKernelGradient(const T* x, const T* dy, typename Lanes<T>::Sum* kernel_sum, int64_t length,
                            int64_t channels, int64_t width, int64_t first) {
  using L = Lanes<T>;
  for (int64_t j = 0; j < width; ++j) {
    const int64_t from = -(first + j) > 0 ? -(first + j) : 0;
    const int64_t to = first + j > 0 ? length - first - j : length;
    ForVectors<L::kCount>(channels, [&](int64_t c, int64_t n) {
      typename L::V sum = Load(kernel_sum + j * channels + c, n);
      for (int64_t t = from; t < to; ++t)
        sum += Load(dy + t * channels + c, n) * Load(x + (t + first + j) * channels + c, n);
      Store(kernel_sum + j * channels + c, sum, n);
    });
  }
}

// Softmax over the taps at one position, for the channels of one vector; `logits` is the first tap's.
template <typename T>
ALLO_INLINE void TapSoftmax(const T* logits, int64_t channels, int64_t width, int64_t n, typename Lanes<T>::V* p) {
  using V = typename Lanes<T>::V;
  V largest = Load(logits, n);
  for (int64_t j = 0; j < width; ++j) {
    p[j] = Load(logits + j * channels, n);
    largest = Maximum(p[j], largest);
  }
  V sum = {};
  for (int64_t j = 0; j < width; ++j) {
    p[j] = Exp(p[j] - largest);
    sum += p[j];
  }
  const V share = 1 / sum;
  for (int64_t j = 0; j < width; ++j) p[j] *= share;
}

template <typename T>
void DynamicConvolve(const T* x, const T* logits, T* y, int64_t length, int64_t channels, int64_t width,
                     int64_t first) {
  using L = Lanes<T>;
  for (int64_t t = 0; t < length; ++t)
    ForVectors<L::kCount>(channels, [&](int64_t c, int64_t n) {
      typename L::V p[kLargestDynamicWidth], sum = {};
      TapSoftmax<T>(logits + t * width * channels + c, channels, width, n, p);
      for (int64_t j = 0; j < width; ++j)
        if (const int64_t s = t + first + j; s >= 0 && s < length) sum += p[j] * Load(x + s * channels + c, n);
      Store(y + t * channels + c, sum, n);
    });
}

// With r_j = p_j dy: dx[t + first + j] += r_j, and through the softmax dlogits_j = r_j (x[t + first + j] - y), since
// the mean of dp under p is dy y. Position s of dx adds up in row (s - first) mod width of the ring; t = s - first is
// the last to add to it.
template <typename T>
void DynamicConvolveBackward(const T* x, const T* logits, const T* y, const T* dy, T* dx, T* dlogits,
                             typename Lanes<T>::Sum* ring, int64_t length, int64_t channels, int64_t width,
                             int64_t first) {
  using L = Lanes<T>;
  for (int64_t t = 0; t < length - first; ++t) {
    const bool inside = t < length, complete = t + first >= 0;
    ForVectors<L::kCount>(channels, [&](int64_t c, int64_t n) {
      if (inside) {
        typename L::V p[kLargestDynamicWidth];
        TapSoftmax<T>(logits + t * width * channels + c, channels, width, n, p);
        const typename L::V g = Load(dy + t * channels + c, n), value = Load(y + t * channels + c, n);
        for (int64_t j = 0; j < width; ++j) {
          const int64_t s = t + first + j;
          typename L::V difference = -value, r = p[j] * g;
          if (s >= 0 && s < length) {
            difference += Load(x + s * channels + c, n);
            typename L::Sum* row = ring + (t + j) % width * channels + c;
            Store(row, Load(row, n) + r, n);
          }
          Store(dlogits + (t * width + j) * channels + c, r * difference, n);
        }
      }
      if (complete) {
        typename L::Sum* row = ring + t % width * channels + c;
        Store(dx + (t + first) * channels + c, Load(row, n), n);
        Store(row, typename L::V{}, n);
      }
    });
  }
}

template <typename Sum>
void Add(const Sum* from, Sum* into, int64_t n) {
  using L = Lanes<Sum>;
  ForVectors<L::kCount>(
      n, [&](int64_t i, int64_t count) { Store(into + i, Load(into + i, count) + Load(from + i, count), count); });
}

// Outputs `pair` ... `pair` + 7 of the SplitMix64 that starts from `key`, as 16 words: the low half of each comes
// first.
ALLO_INLINE Word16 RandomWords(uint64_t key, uint64_t pair) {
  const Long8 lanes = {1, 2, 3, 4, 5, 6, 7, 8};
  Long8 x = (lanes + pair) * 0x9e3779b97f4a7c15u + key;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  x ^= x >> 31;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  x = (x << 32) | (x >> 32);
#endif
  Word16 words;
  __builtin_memcpy(&words, &x, sizeof words);
  return words;
}

// Calls f(i, words, begin, count): words begin ... begin + count - 1 are those of values i ... i + count - 1.
template <typename F>
ALLO_INLINE void ForWords(int64_t n, uint64_t key, uint64_t first, F f) {
  int64_t i = 0;
  if (first & 1 && n > 0) {
    f(int64_t{0}, RandomWords(key, first >> 1), 1, int64_t{1});
    i = 1;
  }
  for (; i < n; i += 16) f(i, RandomWords(key, (first + static_cast<uint64_t>(i)) >> 1), 0, n - i < 16 ? n - i : 16);
}

template <typename T>
void RandomMask(T* out, int64_t n, uint64_t key, uint64_t first, uint32_t threshold, typename Lanes<T>::Sum scale) {
  using L = Lanes<T>;
  ForWords(
      n, key, first, [&](int64_t i, Word16 words, int begin, int64_t count) __attribute__((always_inline)) {
        if constexpr (L::kCount == 16) {
          if (count == 16) {
            const Float16 zero = {};
            Store(out + i, words >= threshold ? zero + scale : zero, 16);
            return;
          }
        }
        for (int64_t j = 0; j < count; ++j) StoreValue(out + i + j, words[begin + j] >= threshold ? scale : 0);
      });
}

template <typename T>
void RandomUniform(typename Lanes<T>::Sum* out, int64_t n, uint64_t key, uint64_t first, typename Lanes<T>::Sum low,
                   typename Lanes<T>::Sum width) {
  using Sum = typename Lanes<T>::Sum;
  const Sum unit = static_cast<Sum>(0x1p-32);
  ForWords(
      n, key, first, [&](int64_t i, Word16 words, int begin, int64_t count) __attribute__((always_inline)) {
        for (int64_t j = 0; j < count; ++j) out[i + j] = low + width * (static_cast<Sum>(words[begin + j]) * unit);
      });
}

template <typename T>
constexpr Kernels<T> kTable{&NormForward<T>,
                            &NormBackward<T>,
                            &SoftmaxForward<T>,
                            &SoftmaxBackward<T>,
                            &CrossEntropy<T>,
                            &GateForward<T>,
                            &GateBackward<T>,
                            &Convolve<T>,
                            &ConvolveKernelGradient<T>,
                            &DynamicConvolve<T>,
                            &DynamicConvolveBackward<T>,
                            &Add<typename SumTypeOf<T>::type>,
                            &RandomMask<T>,
                            &RandomUniform<T>};

}  // namespace

extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
extern const Kernels<Bf16> kBf16;
const Kernels<float> kFloat = kTable<float>;
const Kernels<double> kDouble = kTable<double>;
const Kernels<Bf16> kBf16 = kTable<Bf16>;

}  // namespace allometry::trainer::ALLO_KERNEL_SET
