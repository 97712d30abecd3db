#pragma once

#include <cstdint>

#include "worker/trainer/layers/kernels.h"

// Vectors of 64 bytes in GCC's and Clang's portable notation, which any instruction set lowers to what it has. Included
// only by kernels_simd.cc, inside the namespace of its instruction set, so that no function is shared between sets:
// everything here is internal to that file.
namespace allometry::trainer::ALLO_KERNEL_SET {
namespace {

#define ALLO_INLINE inline __attribute__((always_inline))

using Float16 = float __attribute__((vector_size(64)));
using Int16 = int32_t __attribute__((vector_size(64)));
using Double8 = double __attribute__((vector_size(64)));
using Short16 = uint16_t __attribute__((vector_size(32)));
using Word16 = uint32_t __attribute__((vector_size(64)));
using Long8 = uint64_t __attribute__((vector_size(64)));

template <typename Sum>
struct VectorOf;
template <>
struct VectorOf<float> {
  using type = Float16;
};
template <>
struct VectorOf<double> {
  using type = Double8;
};

// How values of T are loaded into and stored from vectors of their sum type.
template <typename T>
struct Lanes {
  using Sum = typename SumTypeOf<T>::type;
  using V = typename VectorOf<Sum>::type;
  static constexpr int64_t kCount = 64 / sizeof(Sum);
};

ALLO_INLINE void LoadInto(const float* p, Float16& v) { __builtin_memcpy(&v, p, sizeof v); }
ALLO_INLINE void LoadInto(const double* p, Double8& v) { __builtin_memcpy(&v, p, sizeof v); }
ALLO_INLINE void LoadInto(const Bf16* p, Float16& v) {
  Short16 raw;
  __builtin_memcpy(&raw, p, sizeof raw);
  const Word16 wide = __builtin_convertvector(raw, Word16) << 16;
  __builtin_memcpy(&v, &wide, sizeof v);
}

ALLO_INLINE void StoreFrom(float* p, const Float16& v) { __builtin_memcpy(p, &v, sizeof v); }
ALLO_INLINE void StoreFrom(double* p, const Double8& v) { __builtin_memcpy(p, &v, sizeof v); }
ALLO_INLINE void StoreFrom(Bf16* p, const Float16& v) {  // to nearest, ties to even; NaN stays NaN
  Word16 bits;
  __builtin_memcpy(&bits, &v, sizeof bits);
  const Word16 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Word16 is_number = (Word16)(v == v);
  const Short16 out = __builtin_convertvector((rounded & is_number) | (0x7fc0u & ~is_number), Short16);
  __builtin_memcpy(p, &out, sizeof out);
}

// The first n lanes from memory, the others `fill`.
template <typename T>
ALLO_INLINE typename Lanes<T>::V Load(const T* p, int64_t n, typename Lanes<T>::Sum fill = 0) {
  typename Lanes<T>::V v;
  if (n == Lanes<T>::kCount) {
    LoadInto(p, v);
    return v;
  }
  T padded[Lanes<T>::kCount] = {};
  for (int64_t i = 0; i < n; ++i) padded[i] = p[i];
  LoadInto(padded, v);
  for (int64_t i = n; i < Lanes<T>::kCount; ++i) v[i] = fill;
  return v;
}

template <typename T>
ALLO_INLINE void Store(T* p, typename Lanes<T>::V v, int64_t n) {
  if (n == Lanes<T>::kCount) return StoreFrom(p, v);
  T padded[Lanes<T>::kCount];
  StoreFrom(padded, v);
  for (int64_t i = 0; i < n; ++i) p[i] = padded[i];
}

// Calls f(i, lanes) over [0, n) in full vectors and one rest.
template <int64_t kCount, typename F>
ALLO_INLINE void ForVectors(int64_t n, F f) {
  int64_t i = 0;
  for (; i + kCount <= n; i += kCount) f(i, kCount);
  if (i < n) f(i, n - i);
}

template <typename V>
ALLO_INLINE auto TotalOf(V v) {
  auto total = v[0];
  for (unsigned i = 1; i < sizeof(V) / sizeof(total); ++i) total += v[i];
  return total;
}

template <typename V>
ALLO_INLINE auto MaximumOf(V v) {
  auto best = v[0];
  for (unsigned i = 1; i < sizeof(V) / sizeof(best); ++i) best = v[i] > best ? v[i] : best;
  return best;
}

template <typename V>
ALLO_INLINE V Maximum(V a, V b) {
  return a > b ? a : b;
}

// e^x to about one unit in the last place: e^x = 2^n e^r with |r| <= ln 2 / 2 and a polynomial for e^r. Below the
// smallest normal number 0, above the largest infinity; NaN stays NaN.
ALLO_INLINE Float16 Exp(Float16 x) {
  const float kShift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, which its low bits then hold
  const Float16 zero = {};
  const Float16 low = zero - 87.33654f, high = zero + 88.72283f;
  const Float16 clamped = x < low ? low : (x > high ? high : x);
  const Float16 shifted = clamped * 1.44269504f + kShift;
  const Float16 n = shifted - kShift;
  const Float16 r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  Float16 p = zero + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  Int16 bits;
  __builtin_memcpy(&bits, &shifted, sizeof bits);
  // 2^n in two factors, since 2^128 is no float32 while e^88.7 is one.
  const Int16 whole = bits - 0x4B400000, half = whole >> 1;
  const Int16 first_bits = (half + 127) << 23, second_bits = (whole - half + 127) << 23;
  Float16 first, second;
  __builtin_memcpy(&first, &first_bits, sizeof first);
  __builtin_memcpy(&second, &second_bits, sizeof second);
  const Float16 result = p * first * second;
  return x < low ? zero : (x > high ? zero + __builtin_inff() : result);
}

ALLO_INLINE Double8 Exp(Double8 x) {
  for (int i = 0; i < 8; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

ALLO_INLINE float Log(float x) { return __builtin_logf(x); }
ALLO_INLINE double Log(double x) { return __builtin_log(x); }
ALLO_INLINE float SquareRoot(float x) { return __builtin_sqrtf(x); }
ALLO_INLINE double SquareRoot(double x) { return __builtin_sqrt(x); }
ALLO_INLINE void StoreValue(float* p, float v) { *p = v; }
ALLO_INLINE void StoreValue(double* p, double v) { *p = v; }
ALLO_INLINE void StoreValue(Bf16* p, float v) {  // of a number
  uint32_t bits;
  __builtin_memcpy(&bits, &v, sizeof bits);
  p->bits = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
ALLO_INLINE float ValueOf(const float* p) { return *p; }
ALLO_INLINE double ValueOf(const double* p) { return *p; }
ALLO_INLINE float ValueOf(const Bf16* p) {
  const uint32_t wide = static_cast<uint32_t>(p->bits) << 16;
  float v;
  __builtin_memcpy(&v, &wide, sizeof v);
  return v;
}

}  // namespace
}  // namespace allometry::trainer::ALLO_KERNEL_SET
