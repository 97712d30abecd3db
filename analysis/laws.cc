#include "analysis/laws.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "analysis/law_solver.h"

namespace allometry::analysis {
namespace {

constexpr int kMostReplicates = 1'000'000;
constexpr double kOnOneLine = 1e-4;  // share of ln D's variance that ln N leaves unexplained

bool HasBothMethods(LawForm form) { return form == LawForm::kParametersTokens || form == LawForm::kCompute; }

// 1 - R^2 of ln D on ln N.
double UnexplainedShare(std::span<const LawPoint> points) {
  double mean_x = 0, mean_y = 0, xx = 0, xy = 0, yy = 0;
  const auto n = static_cast<double>(points.size());
  for (const LawPoint& p : points) mean_x += std::log(p.x) / n, mean_y += std::log(p.tokens) / n;
  for (const LawPoint& p : points) {
    const double dx = std::log(p.x) - mean_x, dy = std::log(p.tokens) - mean_y;
    xx += dx * dx, xy += dx * dy, yy += dy * dy;
  }
  return 1 - xy * xy / (xx * yy);
}

void AddIntervals(const LawOptions& options, LawFit* fit) {
  fit->failed_replicates =
      static_cast<int>(std::ranges::count_if(fit->replicates, [](const auto& r) { return r.empty(); }));
  if (2 * fit->failed_replicates >= options.replicates) return;
  for (size_t i = 0; i < fit->estimates.size(); ++i) {
    const std::vector<double> values = Column(fit->replicates, i);
    fit->estimates[i].interval = PercentileInterval(values, options.confidence);
    fit->estimates[i].standard_error = StandardDeviation(values);
  }
}

LawFit FitOne(LawForm form, LawMethod method, const LawSolver& solver, const LawOptions& options) {
  const std::vector<StartResult> starts = solver.FitFromGrid(options.threads);
  const StartResult& best = *std::ranges::min_element(starts, {}, &StartResult::objective);
  LawFit fit;
  fit.method = method;
  fit.objective = best.objective;
  fit.certificate = Certify(solver, best.parameters, best.start, starts);
  for (size_t i = 0; i < best.parameters.size(); ++i)
    fit.estimates.push_back({LawParameterNames(form)[i], best.parameters[i], {}, 0});
  fit.replicates = Bootstrap(solver, best.parameters, options.replicates, options.seed, options.threads);
  AddIntervals(options, &fit);
  return fit;
}

std::optional<Range> PairedInterval(const LawFit& a, const LawFit& b, size_t index, double confidence) {
  std::vector<double> differences;
  for (size_t i = 0; i < a.replicates.size(); ++i)
    if (!a.replicates[i].empty() && !b.replicates[i].empty())
      differences.push_back(a.replicates[i][index] - b.replicates[i][index]);
  if (differences.empty()) return std::nullopt;
  return PercentileInterval(differences, confidence);
}

// Whether a parameter says where the curve goes: the coefficients A and B only follow their exponents.
bool IsCompared(const std::string& name) { return name != "A" && name != "B"; }

void Compare(LawResult* result) {
  LawFit &huber = result->fits[0], &projection = result->fits[1];
  for (size_t i = 0; i < huber.estimates.size(); ++i) {
    const LawEstimate &h = huber.estimates[i], &p = projection.estimates[i];
    result->disagreement.push_back(
        {h.name, h.value - p.value, PairedInterval(huber, projection, i, result->options.confidence)});
    if (!IsCompared(h.name) || !h.interval) continue;
    if (p.value >= h.interval->low && p.value <= h.interval->high) continue;
    for (LawFit* fit : {&huber, &projection})
      fit->certificate.failures.push_back("the methods disagree: least squares puts " + h.name +
                                          " outside the interval of Huber's fit");
  }
}

}  // namespace

common::Status CheckLawOptions(const LawOptions& options) {
  if (!(options.confidence > 0 && options.confidence < 1))
    return common::InvalidArgument("the confidence must lie between 0 and 1");
  if (options.replicates < 0 || options.replicates > kMostReplicates)
    return common::InvalidArgument("the replicates must be 0 to " + std::to_string(kMostReplicates));
  if (!(options.delta > 0) || !std::isfinite(options.delta))
    return common::InvalidArgument("Huber's delta must be above 0");
  return common::Ok();
}

const char* LawMethodName(LawMethod method) { return method == LawMethod::kHuber ? "huber" : "variable_projection"; }

std::vector<double> LawFit::Parameters() const {
  std::vector<double> out;
  for (const LawEstimate& estimate : estimates) out.push_back(estimate.value);
  return out;
}

common::Result<LawResult> FitLaw(LawForm form, std::span<const LawPoint> points, const LawOptions& options) {
  ALLO_RETURN_IF_ERROR(CheckLawOptions(options));
  ALLO_RETURN_IF_ERROR(CheckLawPoints(form, points));
  LawResult result{form, options, points.size(), {}, {}};
  if (HasBothMethods(form))
    result.fits.push_back(FitOne(form, LawMethod::kHuber, *MakeHuberSolver(form, points, options.delta), options));
  result.fits.push_back(FitOne(form, LawMethod::kProjection, *MakeProjectionSolver(form, points), options));
  if (form == LawForm::kParametersTokens && UnexplainedShare(points) < kOnOneLine)
    for (LawFit& fit : result.fits)
      fit.certificate.failures.push_back(
          "all sizes lie on one line of ln N and ln D: alpha and beta cannot be told apart");
  if (HasBothMethods(form)) Compare(&result);
  return result;
}

}  // namespace allometry::analysis
