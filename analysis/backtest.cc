#include "analysis/backtest.h"

#include <algorithm>
#include <cmath>

#include "analysis/mean.h"
#include "analysis/size_curve.h"

namespace allometry::analysis {
namespace {

constexpr size_t kFewestSizes = 3;  // two to fit, one to ask

// Squared deviations of y - slope x from the means of their sizes: what a seed adds to a measured mean.
double ResidualSquaresWithin(std::span<const SizeSamples> sizes, double slope, double* degrees) {
  double squares = 0;
  *degrees = 0;
  for (const SizeSamples& size : sizes) {
    std::vector<double> left;
    for (size_t s = 0; s < size.y.size(); ++s) left.push_back(size.y[s] - slope * size.x[s]);
    const double mean = Mean(left);
    for (double value : left) squares += (value - mean) * (value - mean);
    *degrees += static_cast<double>(left.size()) - 1;
  }
  return squares;
}

std::optional<Interval> IntervalOf(const CurveValue& v, double confidence) {
  if (!(v.variance > 0) || !(v.degrees > 0)) return std::nullopt;
  const double half = TQuantile(confidence, v.degrees) * std::sqrt(v.variance);
  return Interval{v.value - half, v.value + half, v.degrees};
}

// The line's uncertainty and that of the mean to be measured, with the seeds' pooled variance.
std::optional<Interval> SeedForecast(std::span<const SizeSamples> fitted, const SizeSamples& asked, double slope,
                                     double confidence) {
  const auto line = SizeCurve::Fit(fitted, 1, VarianceBasis::kSeeds);
  if (!line) return std::nullopt;
  const CurveValue at = line->At(Mean(asked.x));
  CurveValue measured;
  const double squares = ResidualSquaresWithin(fitted, slope, &measured.degrees);
  measured.variance = squares / measured.degrees / static_cast<double>(asked.x.size());
  CurveValue sum = Minus(at, measured);
  // Pooled, both are the same estimated variance, with its own degrees of freedom.
  if (at.degrees == measured.degrees) sum.degrees = at.degrees;
  return IntervalOf(sum, confidence);
}

// s^2 (1 + 1/k + u^2 / Sxx): the new size strays from the line as the others do.
std::optional<Interval> SizeForecast(std::span<const SizeSamples> fitted, double x, double confidence) {
  const auto line = SizeCurve::Fit(fitted, 1, VarianceBasis::kSizes);
  if (!line) return std::nullopt;
  CurveValue at = line->At(x);
  std::vector<double> xs;
  for (const SizeSamples& size : fitted) xs.push_back(Mean(size.x));
  at.variance += line->At(Mean(xs)).variance * static_cast<double>(xs.size());
  return IntervalOf(at, confidence);
}

Forecast ForecastByLine(const ForecastRequest& request) {
  const std::span<const SizeSamples> fitted = request.fitted;
  Forecast out;
  const SlopeEstimate estimate = EstimateSlope(fitted, request.confidence);
  if (!estimate.alpha) {
    out.refused = "without its largest size: " + estimate.refused;
    return out;
  }
  std::vector<double> xs, ys;
  for (const SizeSamples& size : fitted) {
    xs.push_back(Mean(size.x));
    ys.push_back(Mean(size.y));
  }
  const double x = Mean(request.asked.x);
  out.value = Mean(ys) + *estimate.alpha * (x - Mean(xs));
  out.seed_interval = SeedForecast(fitted, request.asked, *estimate.alpha, request.confidence);
  out.line_interval = SizeForecast(fitted, x, request.confidence);
  return out;
}

// Y is a logarithm, its sign turned; D against U never is.
bool IsLogarithm(const AxisPair& axes, Transform transform) {
  return transform == Transform::kLoglog && axes.x != Axis::kUpstream;
}

bool HoldsValue(const Interval& interval, double value) { return interval.low <= value && value <= interval.high; }

void CompareForecast(const Forecast& forecast, double measured, Transform transform, BacktestRow* row) {
  row->forecast = forecast.value;
  row->measured = measured;
  row->seed_interval = forecast.seed_interval;
  row->line_interval = forecast.line_interval;
  row->error = *forecast.value - measured;
  row->forecast_value = NaturalValue(*forecast.value, row->axes, transform);
  row->measured_value = NaturalValue(measured, row->axes, transform);
  if (*row->measured_value != 0)
    row->relative_error = (*row->forecast_value - *row->measured_value) / std::abs(*row->measured_value);
  if (row->seed_interval) row->in_seed_interval = HoldsValue(*row->seed_interval, measured);
  if (row->line_interval) row->in_line_interval = HoldsValue(*row->line_interval, measured);
}

// The sizes of a slope by rising x, as indices into its points.
std::vector<size_t> OrderByX(const Slope& slope) {
  std::vector<size_t> order(slope.points.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::stable_sort(order, {}, [&](size_t i) { return slope.points[i].x; });
  return order;
}

BacktestRow AskForLargest(const std::string& architecture, const Slope& slope, const BacktestForm& form,
                          const SlopesRequest& request) {
  BacktestRow row{.form = form.name, .architecture = architecture, .axes = {slope.x, slope.y}};
  if (!slope.estimate.alpha) {
    row.refused = slope.estimate.refused;
    return row;
  }
  if (slope.points.size() < kFewestSizes) {
    row.refused = "a back-test needs three sizes, two to fit and one to ask for";
    return row;
  }
  const std::vector<size_t> order = OrderByX(slope);
  std::vector<SizeSamples> fitted;
  for (size_t i = 0; i + 1 < order.size(); ++i) fitted.push_back(slope.samples[order[i]]);
  const SizeSamples& asked = slope.samples[order.back()];
  row.size = slope.points[order.back()].size;
  row.x = slope.points[order.back()].x;
  row.largest_fitted_x = slope.points[order[order.size() - 2]].x;
  row.fitted_sizes = static_cast<int>(fitted.size());
  const Forecast forecast = form.forecast({fitted, asked, row.axes, request.transform, request.confidence});
  row.refused = forecast.refused;
  if (!forecast.value && row.refused.empty()) row.refused = "the form gives no value";
  if (forecast.value) CompareForecast(forecast, slope.points[order.back()].y, request.transform, &row);
  return row;
}

BacktestSummary Summarise(std::span<const BacktestRow> rows, const std::string& form, const AxisPair& axes) {
  BacktestSummary out{.form = form, .axes = axes};
  std::vector<double> errors, absolute, relative;
  for (const BacktestRow& row : rows) {
    if (row.form != form || row.axes != axes) continue;
    ++out.asked;
    out.refused += !row.forecast;
    if (row.error) errors.push_back(*row.error);
    if (row.error) absolute.push_back(std::abs(*row.error));
    if (row.relative_error) relative.push_back(std::abs(*row.relative_error));
    out.with_seed_interval += row.in_seed_interval.has_value();
    out.in_seed_interval += row.in_seed_interval.value_or(false);
    out.with_line_interval += row.in_line_interval.has_value();
    out.in_line_interval += row.in_line_interval.value_or(false);
  }
  if (!errors.empty()) {
    out.median_absolute_error = Median(absolute);
    out.largest_absolute_error = std::ranges::max(absolute);
    out.mean_error = Mean(errors);
  }
  if (!relative.empty()) out.median_absolute_relative_error = Median(relative);
  return out;
}

bool Takes(const BacktestForm& form, const AxisPair& axes) { return !form.takes || form.takes(axes); }

}  // namespace

double NaturalValue(double y, const AxisPair& axes, Transform transform) {
  const bool logarithm = IsLogarithm(axes, transform);
  if (axes.y == Axis::kUpstream) return logarithm ? std::exp(-y) : -y;
  return logarithm ? 1 - std::exp(-y) : y;
}

double AxisValueOf(double natural, const AxisPair& axes, Transform transform) {
  const bool logarithm = IsLogarithm(axes, transform);
  if (axes.y == Axis::kUpstream) return logarithm ? -std::log(natural) : -natural;
  return logarithm ? -std::log(1 - natural) : natural;
}

BacktestForm LineForm() { return {"line", ForecastByLine, {}}; }

common::Result<BacktestResult> Backtest(const records::Table& table, const BacktestRequest& wanted,
                                        std::span<const BacktestForm> forms) {
  BacktestRequest request = wanted;
  request.slopes.baseline.clear();
  ALLO_ASSIGN_OR_RETURN(const SlopesResult slopes, Slopes(table, request.slopes));
  BacktestResult result{request, slopes.downstream, {}, {}, {}};
  result.left_out = request.axes ? LeftOutOfAxes(slopes.left_out, *request.axes) : slopes.left_out;
  for (const AxisPair& axes : kAxisPairs) {
    if (request.axes && *request.axes != axes) continue;
    const size_t begin = result.rows.size();
    for (const ArchitectureSlopes& a : slopes.architectures) {
      for (const BacktestForm& form : forms)
        if (Takes(form, axes))
          result.rows.push_back(AskForLargest(a.architecture, *FindSlope(a, axes.x, axes.y), form, request.slopes));
    }
    for (const BacktestForm& form : forms)
      if (Takes(form, axes))
        result.summaries.push_back(Summarise(std::span(result.rows).subspan(begin), form.name, axes));
  }
  return result;
}

common::Result<BacktestResult> Backtest(const records::Table& table, const BacktestRequest& request) {
  const BacktestForm line = LineForm();
  return Backtest(table, request, std::span(&line, 1));
}

}  // namespace allometry::analysis
