#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "analysis/axis_pair.h"
#include "analysis/line.h"
#include "analysis/slopes.h"
#include "common/result.h"
#include "records/records.h"

// What an extrapolation would have said of a size that has been measured (docs/science.md, "Back-test"). Pure
// functions.
namespace allometry::analysis {

// What a form, fitted on some sizes, says of the mean over seeds of another.
struct Forecast {
  std::optional<double> value;            // of y; absent when refused
  std::optional<Interval> seed_interval;  // of the mean to be measured, as far as seeds make it differ
  std::optional<Interval> line_interval;  // allows for deviations from size to size too
  std::string refused;
};

// What a form is fitted to, and asked: `fitted` are the smaller sizes, rising in x, on the axes of a slope under
// `transform`; `asked` holds the x of the seeds that were measured, and its y is not to be looked at.
struct ForecastRequest {
  std::span<const SizeSamples> fitted;
  const SizeSamples& asked;
  AxisPair axes;
  Transform transform = Transform::kSemilog;
  double confidence = 0.95;
};

// A form that extrapolates: a straight line here, laws in analysis/law_forecast.h.
struct BacktestForm {
  std::string name;
  std::function<Forecast(const ForecastRequest&)> forecast;
  std::function<bool(const AxisPair&)> takes;  // the axes that it can be asked on; unset: all
};

// A y of a slope as a loss in nats, or as a score, and the reverse.
double NaturalValue(double y, const AxisPair& axes, Transform transform);
double AxisValueOf(double natural, const AxisPair& axes, Transform transform);

// "line": that of the slopes, from two sizes on; its line interval from three.
BacktestForm LineForm();

struct BacktestRequest {
  SlopesRequest slopes;          // which cells, conventions and confidence; its baseline is not read
  std::optional<AxisPair> axes;  // absent: all pairs that slopes are computed for
};

// One form asked for the largest size of one architecture. y and its intervals are on the slope's axes; error is
// forecast minus measured.
struct BacktestRow {
  std::string form, architecture;
  AxisPair axes;
  std::string size;  // the one that was asked for
  int fitted_sizes = 0;
  double x = 0, largest_fitted_x = 0;
  std::optional<double> forecast, measured, error;
  // The same as a loss (nats) or a score, and the error as a share of what was measured (absent of a measured zero).
  std::optional<double> forecast_value, measured_value, relative_error;
  std::optional<Interval> seed_interval, line_interval;
  std::optional<bool> in_seed_interval, in_line_interval;
  std::string refused;
};

// Over the architectures of one form and pair of axes.
struct BacktestSummary {
  std::string form;
  AxisPair axes;
  int asked = 0, refused = 0;
  std::optional<double> median_absolute_error, largest_absolute_error, mean_error;  // of y; the mean keeps its sign
  std::optional<double> median_absolute_relative_error;
  int with_seed_interval = 0, in_seed_interval = 0;
  int with_line_interval = 0, in_line_interval = 0;
};

struct BacktestResult {
  BacktestRequest request;
  Downstream downstream;
  std::vector<BacktestRow> rows;           // by axes, architecture and form
  std::vector<BacktestSummary> summaries;  // by axes and form
  std::vector<LeftOut> left_out;
};

// Errors as Slopes. A slope that is refused, or has fewer than three sizes, is in the result with its reason.
common::Result<BacktestResult> Backtest(const records::Table& table, const BacktestRequest& request,
                                        std::span<const BacktestForm> forms);
// With LineForm alone.
common::Result<BacktestResult> Backtest(const records::Table& table, const BacktestRequest& request);

}  // namespace allometry::analysis
