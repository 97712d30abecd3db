#include "analysis/law_kernel.h"

#include <cmath>
#include <cstdint>
#include <numeric>

// Vectors of eight doubles in GCC's and Clang's portable notation; the instruction set is chosen at run time. Without
// fused multiply-adds (ISO mode) and with eight lanes everywhere, every machine gets the same bits.
// The choice is made while the program is loaded, before a sanitizer is ready.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__) && !defined(ALLOMETRY_THREAD_SANITIZER)
#define ALLO_LAW_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define ALLO_LAW_CLONES
#endif
#define ALLO_LAW_INLINE inline __attribute__((always_inline))

namespace allometry::analysis {
namespace {

constexpr size_t kLanes = 8;
using Lanes = double __attribute__((vector_size(64)));
using LaneBits = int64_t __attribute__((vector_size(64)));

// Vectors go by reference: passing them by value has an ABI that depends on the instruction set.
ALLO_LAW_INLINE void LoadLanes(const double* from, Lanes& to) { __builtin_memcpy(&to, from, sizeof to); }

ALLO_LAW_INLINE double SumOfLanes(const Lanes& v) {
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

// e^x for |x| <= 700 to about one unit in the last place: x = n ln 2 + r, Taylor's polynomial of degree 13 for e^r.
ALLO_LAW_INLINE void ExpLanes(Lanes& x) {
  constexpr double kShift = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer, held by the low bits
  const Lanes shifted = x * 1.4426950408889634 + kShift;
  const Lanes n = shifted - kShift;
  const Lanes r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
  Lanes p = r * (1.0 / 6227020800.0) + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  LaneBits bits;
  __builtin_memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 52) + (int64_t{1023} << 52);
  Lanes power;
  __builtin_memcpy(&power, &bits, sizeof power);
  x = p * power;
}

// ln x for normal x >= 1: x = 2^n m with m in [sqrt(1/2), sqrt(2)), ln m = 2 artanh((m - 1) / (m + 1)) by its series.
ALLO_LAW_INLINE void LogLanes(Lanes& x) {
  LaneBits bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  // Adding 2^52 times the distance from sqrt(1/2) to 1 moves the cut between exponents to sqrt(2).
  const LaneBits moved = bits + (int64_t{0x3ff0000000000000} - int64_t{0x3fe6a09e667f3bcd});
  const LaneBits exponent = (moved >> 52) - 1023;
  const LaneBits mantissa = bits - (exponent << 52);
  Lanes m;
  __builtin_memcpy(&m, &mantissa, sizeof m);
  // The exponent as a double, by the same trick as in ExpLanes: no instruction set below AVX-512 converts 64 bits.
  const LaneBits shifted = exponent + int64_t{0x4338000000000000};
  Lanes n;
  __builtin_memcpy(&n, &shifted, sizeof n);
  n = n - 6755399441055744.0;
  const Lanes f = (m - 1.0) / (m + 1.0), f2 = f * f;
  Lanes s = f2 * (2.0 / 21) + 2.0 / 19;
  s = s * f2 + 2.0 / 17;
  s = s * f2 + 2.0 / 15;
  s = s * f2 + 2.0 / 13;
  s = s * f2 + 2.0 / 11;
  s = s * f2 + 2.0 / 9;
  s = s * f2 + 2.0 / 7;
  s = s * f2 + 2.0 / 5;
  s = s * f2 + 2.0 / 3;
  x = n * 0.693147180369123816490 + (n * 1.90821492927058770002e-10 + f * f2 * s + f * 2.0);
}

// Sums over points, lane by lane.
template <int K>
struct LaneSums {
  static constexpr int P = kLawParameters<K>;
  Lanes objective = {}, outliers = {};
  Lanes gradient[P] = {};
  Lanes reweighted[P * (P + 1) / 2] = {}, products[P * (P + 1) / 2] = {};  // of J J'
  Lanes diagonal[K + 1] = {}, cross[K] = {}, squares[K] = {};              // of the second derivatives, term by term
  Lanes largest[K + 1] = {};
};

// Adds eight points. The second derivative of the model is T' diag(p) T - J J', with T the (constant) derivative of the
// terms' exponents and p the terms' shares, so that the exact Hessian is the sum of (psi' + psi) J J' - psi T' diag(p)
// T.
template <int K>
ALLO_LAW_INLINE void AddLanes(const LogPoints<K>& points, size_t i, const std::array<double, kLawParameters<K>>& q,
                              double delta, LaneSums<K>& sums) {
  constexpr int P = kLawParameters<K>;
  const Lanes zero = {};
  Lanes x[K], term[K], y, w;
  LoadLanes(&points.y[i], y);
  LoadLanes(&points.weight[i], w);
  Lanes total = zero + 1.0;
  for (int k = 0; k < K; ++k) {
    LoadLanes(&points.x[k][i], x[k]);
    term[k] = (q[k] - q[K]) - q[K + 1 + k] * x[k];  // relative to the constant
    term[k] = term[k] < -600.0 ? zero - 600.0 : (term[k] > 600.0 ? zero + 600.0 : term[k]);
    ExpLanes(term[k]);
    total += term[k];
  }
  Lanes model = total;
  LogLanes(model);
  const Lanes r = y - model - q[K], inverse = 1.0 / total;
  const Lanes size = r < 0.0 ? -r : r;
  const Lanes inside = size <= delta ? zero + 1.0 : zero;
  const Lanes bounded = r > delta ? zero + delta : (r < -delta ? zero - delta : r);
  sums.objective += w * bounded * (r - 0.5 * bounded);
  sums.outliers += w * (1.0 - inside);

  Lanes jacobian[P];
  jacobian[K] = inverse;
  for (int k = 0; k < K; ++k) {
    jacobian[k] = term[k] * inverse;
    jacobian[K + 1 + k] = -x[k] * jacobian[k];
  }
  const Lanes psi = w * bounded;
  const Lanes first = w * inside + psi;
  const Lanes reweighted = size <= delta ? w : w * delta / size;
  for (int p = 0, at = 0; p < P; ++p) {
    sums.gradient[p] -= psi * jacobian[p];
    for (int c = 0; c <= p; ++c, ++at) {
      const Lanes product = jacobian[p] * jacobian[c];
      sums.products[at] += first * product;
      sums.reweighted[at] += reweighted * product;
    }
  }
  const Lanes counted = w > 0.0 ? zero + 1.0 : zero;
  for (int k = 0; k <= K; ++k) {
    const Lanes share = counted * jacobian[k];
    sums.largest[k] = share > sums.largest[k] ? share : sums.largest[k];
    const Lanes bend = psi * jacobian[k];
    sums.diagonal[k] += bend;
    if (k == K) continue;
    sums.cross[k] -= bend * x[k];
    sums.squares[k] += bend * x[k] * x[k];
  }
}

template <int K>
HuberSystem<K> Reduced(const LaneSums<K>& sums) {
  constexpr int P = kLawParameters<K>;
  HuberSystem<K> out;
  out.objective = SumOfLanes(sums.objective);
  out.outliers = SumOfLanes(sums.outliers);
  for (int p = 0, at = 0; p < P; ++p) {
    out.gradient[p] = SumOfLanes(sums.gradient[p]);
    for (int c = 0; c <= p; ++c, ++at) {
      out.reweighted[p * P + c] = out.reweighted[c * P + p] = SumOfLanes(sums.reweighted[at]);
      out.hessian[p * P + c] = out.hessian[c * P + p] = SumOfLanes(sums.products[at]);
    }
  }
  for (int k = 0; k <= K; ++k) {
    out.hessian[k * P + k] -= SumOfLanes(sums.diagonal[k]);
    for (size_t lane = 0; lane < kLanes; ++lane)
      out.largest_share[k] = std::max(out.largest_share[k], double{sums.largest[k][lane]});
    if (k == K) continue;
    const int slope = K + 1 + k;
    out.hessian[k * P + slope] -= SumOfLanes(sums.cross[k]);
    out.hessian[slope * P + k] = out.hessian[k * P + slope];
    out.hessian[slope * P + slope] -= SumOfLanes(sums.squares[k]);
  }
  return out;
}

template <int K>
ALLO_LAW_INLINE void AddAllLanes(const LogPoints<K>& points, const std::array<double, kLawParameters<K>>& q,
                                 double delta, LaneSums<K>& sums) {
  for (size_t i = 0; i < points.y.size(); i += kLanes) AddLanes<K>(points, i, q, delta, sums);
}

ALLO_LAW_CLONES void AddAll(const LogPoints<1>& points, const std::array<double, 3>& q, double delta,
                            LaneSums<1>& sums) {
  AddAllLanes<1>(points, q, delta, sums);
}

ALLO_LAW_CLONES void AddAll(const LogPoints<2>& points, const std::array<double, 5>& q, double delta,
                            LaneSums<2>& sums) {
  AddAllLanes<2>(points, q, delta, sums);
}

}  // namespace

template <int K>
LogPoints<K> LogPoints<K>::Of(const std::array<std::span<const double>, K>& sizes, std::span<const double> losses) {
  LogPoints out;
  for (int k = 0; k < K; ++k) {
    for (double size : sizes[k]) out.x[k].push_back(std::log(size));
    out.centre[k] = std::accumulate(out.x[k].begin(), out.x[k].end(), 0.0) / static_cast<double>(out.x[k].size());
    for (double& x : out.x[k]) x -= out.centre[k];
  }
  for (double loss : losses) out.y.push_back(std::log(loss));
  out.weight.assign(losses.size(), 1);
  out.Pad();
  return out;
}

template <int K>
LogPoints<K> LogPoints<K>::Weighted(std::span<const double> counts) const {
  LogPoints out;
  out.centre = centre;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] <= 0) continue;
    for (int k = 0; k < K; ++k) out.x[k].push_back(x[k][i]);
    out.y.push_back(y[i]);
    out.weight.push_back(counts[i]);
  }
  out.Pad();
  return out;
}

template <int K>
void LogPoints<K>::Pad() {
  while (y.size() % kLanes != 0) {
    for (int k = 0; k < K; ++k) x[k].push_back(0);
    y.push_back(0);
    weight.push_back(0);
  }
}

template <int K>
HuberSystem<K> EvaluateHuber(const LogPoints<K>& points, const std::array<double, kLawParameters<K>>& parameters,
                             double delta) {
  LaneSums<K> sums;
  AddAll(points, parameters, delta, sums);
  return Reduced<K>(sums);
}

template struct LogPoints<1>;
template struct LogPoints<2>;
template HuberSystem<1> EvaluateHuber<1>(const LogPoints<1>&, const std::array<double, 3>&, double);
template HuberSystem<2> EvaluateHuber<2>(const LogPoints<2>&, const std::array<double, 5>&, double);

}  // namespace allometry::analysis
