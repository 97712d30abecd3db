#include "analysis/huber_fit.h"

#include <algorithm>
#include <cmath>

namespace allometry::analysis {
namespace {

constexpr double kStages[] = {1.0, 0.1, 0.03, 0.01, 0.003};  // of delta, in nats relative to the loss
constexpr double kStageGain = 0.05;                          // a stage ends when a step gains less than this share
constexpr double kFirstDamping = 1e-3, kLeastDamping = 1e-9, kMostDamping = 1e12;
constexpr double kDampingDown = 0.2, kDampingUp = 5;
constexpr double kFirstExactDamping = 1e-7, kLeastExactDamping = 1e-12, kExactFactor = 10;
constexpr int kReweightedSteps = 2;  // after a bad step with the exact Hessian
constexpr double kGood = 0.25;       // of the predicted gain: the quadratic model holds
constexpr double kRidge = 1e-11;     // of the largest diagonal entry: keeps steps finite where a term is weak
constexpr double kMostStep = 3, kMostExponentStep = 0.5;
constexpr double kVanished = 1e-6;  // largest share of a term in any point's loss
constexpr int kFirstEvaluations = 10;
constexpr double kNoGain = 1e-14;  // of the objective: rounding

// Solves (matrix + diag(ridge)) step = -gradient by Cholesky's decomposition; false if that is not positive definite.
template <int P>
bool SolveStep(const std::array<double, P * P>& matrix, const std::array<double, P>& gradient,
               const std::array<double, P>& ridge, std::array<double, P>* step) {
  double lower[P][P], z[P];
  for (int i = 0; i < P; ++i) {
    for (int j = 0; j <= i; ++j) {
      double sum = matrix[i * P + j] + (i == j ? ridge[i] : 0);
      for (int k = 0; k < j; ++k) sum -= lower[i][k] * lower[j][k];
      if (i == j && !(sum > 0)) return false;
      lower[i][j] = i == j ? std::sqrt(sum) : sum / lower[j][j];
    }
  }
  for (int i = 0; i < P; ++i) {
    z[i] = -gradient[i];
    for (int k = 0; k < i; ++k) z[i] -= lower[i][k] * z[k];
    z[i] /= lower[i][i];
  }
  for (int i = P - 1; i >= 0; --i) {
    (*step)[i] = z[i];
    for (int k = i + 1; k < P; ++k) (*step)[i] -= lower[k][i] * (*step)[k];
    (*step)[i] /= lower[i][i];
  }
  return true;
}

// What the quadratic model says that a step gains: -(g'd + d'Hd/2).
template <int P>
double PredictedGain(const std::array<double, P * P>& matrix, const std::array<double, P>& gradient,
                     const std::array<double, P>& step) {
  double gain = 0;
  for (int i = 0; i < P; ++i) {
    double product = 0;
    for (int j = 0; j < P; ++j) product += matrix[i * P + j] * step[j];
    gain -= step[i] * (gradient[i] + 0.5 * product);
  }
  return gain;
}

// One descent at one delta.
template <int K>
class Stage {
 public:
  static constexpr int P = kLawParameters<K>;

  Stage(const LogPoints<K>& points, double delta, Descent<K>* at) : points_(points), delta_(delta), at_(at) {
    here_ = Evaluate(at->parameters);
    at->objective = here_.objective;
  }

  // Until a step gains less than `least_gain` of the objective, or nothing more can be gained.
  void Run(double least_gain, int most_evaluations) {
    if (least_gain > 0) reweighted_steps_ = kReweightedSteps + 1;  // far away the exact Hessian is of no use
    while (at_->evaluations < most_evaluations && damping_ < kMostDamping && !Vanished()) {
      LawVector<K> step;
      const bool exact = ChooseStep(&step);
      Shorten(&step);
      const double predicted = PredictedGain<P>(exact ? here_.hessian : here_.reweighted, here_.gradient, step);
      if (!(predicted > kNoGain * here_.objective)) return;
      const double before = here_.objective;
      const double gain = TryStep(step);
      Adapt(exact, gain, predicted);
      if (gain > 0 && gain < least_gain * before) return;
    }
  }

  // Many starts of the grid begin so, and the first steps bring some of them back.
  bool Vanished() const {
    return at_->evaluations > kFirstEvaluations && std::ranges::min(here_.largest_share) < kVanished;
  }

 private:
  HuberSystem<K> Evaluate(const LawVector<K>& parameters) {
    ++at_->evaluations;
    return EvaluateHuber<K>(points_, parameters, delta_);
  }

  LawVector<K> Ridge(double damping) const {
    double largest = 0;
    for (int p = 0; p < P; ++p) largest = std::max(largest, here_.reweighted[p * P + p]);
    LawVector<K> ridge;
    for (int p = 0; p < P; ++p) ridge[p] = damping * here_.reweighted[p * P + p] + kRidge * largest;
    return ridge;
  }

  // Whether the step is one with the exact Hessian.
  bool ChooseStep(LawVector<K>* step) {
    if (reweighted_steps_ <= 0 && SolveStep<P>(here_.hessian, here_.gradient, Ridge(exact_damping_), step)) return true;
    if (reweighted_steps_ <= 0) reweighted_steps_ = kReweightedSteps;
    while (!SolveStep<P>(here_.reweighted, here_.gradient, Ridge(damping_), step) && damping_ < kMostDamping)
      damping_ *= kDampingUp;
    return false;
  }

  static void Shorten(LawVector<K>* step) {
    double factor = 1;
    for (int p = 0; p < P; ++p)
      factor = std::min(factor, (p < K ? kMostStep : kMostExponentStep) / (std::abs((*step)[p]) + 1e-300));
    for (double& value : *step) value *= factor;
  }

  double TryStep(const LawVector<K>& step) {
    LawVector<K> next = at_->parameters;
    for (int p = 0; p < P; ++p) next[p] += step[p];
    const HuberSystem<K> there = Evaluate(next);
    const double gain = here_.objective - there.objective;
    if (!(gain > 0)) return gain;
    at_->parameters = next;
    at_->objective = there.objective;
    here_ = there;
    return gain;
  }

  void Adapt(bool exact, double gain, double predicted) {
    const bool good = gain > kGood * predicted;
    if (exact) {
      exact_damping_ = std::max(kLeastExactDamping, exact_damping_ * (good ? 1 / kExactFactor : kExactFactor));
      if (!good) reweighted_steps_ = kReweightedSteps;
      return;
    }
    --reweighted_steps_;
    if (gain > 0)
      damping_ = std::max(kLeastDamping, damping_ * (good ? kDampingDown : 1));
    else
      damping_ = std::max(kLeastDamping * 10, damping_) * kDampingUp;
  }

  const LogPoints<K>& points_;
  const double delta_;
  Descent<K>* const at_;
  HuberSystem<K> here_;
  double damping_ = kFirstDamping, exact_damping_ = kFirstExactDamping;
  int reweighted_steps_ = 0;  // to be taken before the exact Hessian is tried
};

}  // namespace

template <int K>
Descent<K> DescendHuber(const LogPoints<K>& points, const LawVector<K>& start, const DescentOptions& options) {
  Descent<K> out{start, 0, 0};
  for (double delta : kStages) {
    if (!options.graduated || delta <= options.delta) break;
    Stage<K> stage(points, delta, &out);
    stage.Run(kStageGain, options.most_evaluations);
  }
  Stage<K>(points, options.delta, &out).Run(0, options.most_evaluations);
  return out;
}

template <int K>
std::vector<LawVector<K>> StartGrid() {
  std::vector<LawVector<K>> grid{{}};
  const auto cross = [&grid](int parameter, double low, double high, double step) {
    std::vector<LawVector<K>> next;
    for (const LawVector<K>& start : grid) {
      for (double value = low; value <= high; value += step) {
        next.push_back(start);
        next.back()[parameter] = value;
      }
    }
    grid = std::move(next);
  };
  for (int k = 0; k < K; ++k) cross(K + 1 + k, 0, 2, 0.5);
  cross(K, -1, 1, 0.5);
  for (int k = 0; k < K; ++k) cross(k, 0, 25, 5);
  return grid;
}

template <int K>
LawVector<K> Centred(const LawVector<K>& parameters, const std::array<double, K>& centre) {
  LawVector<K> out = parameters;
  for (int k = 0; k < K; ++k) out[k] -= parameters[K + 1 + k] * centre[k];
  return out;
}

template <int K>
LawVector<K> Uncentred(const LawVector<K>& parameters, const std::array<double, K>& centre) {
  LawVector<K> out = parameters;
  for (int k = 0; k < K; ++k) out[k] += parameters[K + 1 + k] * centre[k];
  return out;
}

#define ALLO_HUBER_FIT(K)                                                                               \
  template Descent<K> DescendHuber<K>(const LogPoints<K>&, const LawVector<K>&, const DescentOptions&); \
  template std::vector<LawVector<K>> StartGrid<K>();                                                    \
  template LawVector<K> Centred<K>(const LawVector<K>&, const std::array<double, K>&);                  \
  template LawVector<K> Uncentred<K>(const LawVector<K>&, const std::array<double, K>&)
ALLO_HUBER_FIT(1);
ALLO_HUBER_FIT(2);
#undef ALLO_HUBER_FIT

}  // namespace allometry::analysis
