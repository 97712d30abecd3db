#include <algorithm>
#include <cmath>

#include "analysis/huber_fit.h"
#include "analysis/law_solver.h"
#include "analysis/parallel.h"

namespace allometry::analysis {
namespace {

constexpr double kInactiveShare = 1e-4;  // a term that is nowhere more of the loss counts as 0
constexpr double kLeastExponent = 0.01, kMostExponent = 3;
constexpr double kSmallestLog = -690;  // of a coefficient that underflowed

// For K = 2 the form's parameters (E, A, B, alpha, beta) and the fit's (a, b, e, alpha, beta); for K = 1 without B.
template <int K>
class HuberSolver final : public LawSolver {
 public:
  static constexpr int P = kLawParameters<K>;

  HuberSolver(LawForm form, std::span<const LawPoint> points, double delta) : form_(form), count_(points.size()) {
    options_.delta = delta;
    std::array<std::vector<double>, 2> sizes;
    std::vector<double> losses;
    for (const LawPoint& point : points) {
      sizes[0].push_back(point.x), sizes[1].push_back(point.tokens);
      losses.push_back(point.y);
    }
    std::array<std::span<const double>, K> spans;
    for (int k = 0; k < K; ++k) spans[k] = sizes[k];
    points_ = LogPoints<K>::Of(spans, losses);
  }

  size_t points() const override { return count_; }

  std::vector<StartResult> FitFromGrid(int threads) const override {
    const std::vector<LawVector<K>> grid = StartGrid<K>();
    std::vector<StartResult> results(grid.size());
    ParallelFor(grid.size(), threads, [&](size_t i) {
      const Descent<K> end = DescendHuber<K>(points_, Centred<K>(grid[i], points_.centre), options_);
      results[i] = {Outer(Centred<K>(grid[i], points_.centre)), Outer(end.parameters), end.objective};
    });
    return results;
  }

  std::optional<std::vector<double>> Refit(std::span<const double> counts,
                                           std::span<const double> warm) const override {
    DescentOptions options = options_;
    options.graduated = false;  // the optimum of all points is near
    const Descent<K> end = DescendHuber<K>(points_.Weighted(counts), Inner(warm), options);
    if (!std::ranges::all_of(end.parameters, [](double p) { return std::isfinite(p); })) return std::nullopt;
    return Outer(end.parameters);
  }

  LocalGeometry Inspect(std::span<const double> parameters) const override {
    const LawVector<K> inner = Inner(parameters);
    const HuberSystem<K> system = EvaluateHuber<K>(points_, inner, options_.delta);
    LocalGeometry out;
    out.objective = system.objective;
    out.floor = static_cast<double>(count_) * 1e-24;  // residuals of 1e-12
    out.outlier_share = system.outliers / static_cast<double>(count_);
    std::vector<int> free;
    for (int p = 0; p < P; ++p)
      if (!AtBound(p, inner, system, &out.active_bounds)) free.push_back(p);
    for (int i : free) {
      out.gradient.push_back(system.gradient[i]);
      for (int j : free) out.gauss_newton.push_back(system.reweighted[i * P + j]);
    }
    return out;
  }

 private:
  std::vector<double> Outer(const LawVector<K>& centred) const {
    const LawVector<K> q = Uncentred<K>(centred, points_.centre);
    std::vector<double> out{std::exp(q[K])};
    for (int k = 0; k < K; ++k) out.push_back(std::exp(q[k]));
    for (int k = 0; k < K; ++k) out.push_back(q[K + 1 + k]);
    return out;
  }

  LawVector<K> Inner(std::span<const double> parameters) const {
    const auto log = [](double value) { return value > 0 ? std::log(value) : kSmallestLog; };
    LawVector<K> out;
    out[K] = log(parameters[0]);
    for (int k = 0; k < K; ++k) {
      out[k] = log(parameters[1 + k]);
      out[K + 1 + k] = parameters[1 + K + k];
    }
    return Centred<K>(out, points_.centre);
  }

  // Names the bound once, at the coefficient or the exponent that lies there.
  bool AtBound(int p, const LawVector<K>& inner, const HuberSystem<K>& system, std::vector<std::string>* bounds) const {
    const std::vector<std::string>& names = LawParameterNames(form_);
    const int term = p > K ? p - K - 1 : p;
    if (system.largest_share[term] < kInactiveShare) {
      if (p <= K) bounds->push_back(names[p == K ? 0 : 1 + p] + " is 0");
      return true;
    }
    if (p <= K || (inner[p] > kLeastExponent && inner[p] < kMostExponent)) return false;
    bounds->push_back(names[p] + (inner[p] <= kLeastExponent ? " is below 0.01" : " is above 3"));
    return true;
  }

  LawForm form_;
  size_t count_;
  LogPoints<K> points_;
  DescentOptions options_;
};

}  // namespace

std::unique_ptr<LawSolver> MakeHuberSolver(LawForm form, std::span<const LawPoint> points, double delta) {
  if (form == LawForm::kParametersTokens) return std::make_unique<HuberSolver<2>>(form, points, delta);
  return std::make_unique<HuberSolver<1>>(form, points, delta);
}

}  // namespace allometry::analysis
