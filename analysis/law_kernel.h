#pragma once

#include <array>
#include <span>
#include <vector>

// The inner loop of Huber fits of L = e^e + sum_k e^(a_k - alpha_k x_k), K = 1 or 2 terms beside the constant, in log
// space: residual r = ln L - logsumexp(e, a_1 - alpha_1 x_1, ...), x_k = ln of a size. Pure functions; thread-safe.
namespace allometry::analysis {

// Parameters are ordered a_1 .. a_K, e, alpha_1 .. alpha_K: for K = 2 that is (a, b, e, alpha, beta).
template <int K>
constexpr int kLawParameters = 2 * K + 1;

// Points in log space. The x are centred: the fits' conditioning should not depend on the unit of size. Padded to whole
// vectors with points of weight 0.
template <int K>
struct LogPoints {
  std::array<std::vector<double>, K> x;
  std::vector<double> y, weight;      // ln loss; how often the point counts
  std::array<double, K> centre = {};  // what was subtracted from ln of the size

  // `sizes[k][i]` and `losses[i]` are positive and finite.
  static LogPoints Of(const std::array<std::span<const double>, K>& sizes, std::span<const double> losses);
  // The points with these weights, without those of weight 0. `counts` has one entry a point.
  LogPoints Weighted(std::span<const double> counts) const;
  void Pad();
};

// The sum of Huber losses at one parameter vector, with what a step needs. Matrices are symmetric, row by row.
template <int K>
struct HuberSystem {
  static constexpr int P = kLawParameters<K>;
  double objective = 0;  // sum of w rho(r), rho(r) = r^2/2 up to delta, then delta (|r| - delta/2)
  double outliers = 0;   // weight of the points with |r| > delta
  std::array<double, P> gradient = {};
  std::array<double, P* P> reweighted = {};      // sum of w min(1, delta/|r|) J J': never indefinite
  std::array<double, P* P> hessian = {};         // the exact one
  std::array<double, K + 1> largest_share = {};  // of each term in the loss, over all points; the constant is last
};

template <int K>
HuberSystem<K> EvaluateHuber(const LogPoints<K>& points, const std::array<double, kLawParameters<K>>& parameters,
                             double delta);

}  // namespace allometry::analysis
