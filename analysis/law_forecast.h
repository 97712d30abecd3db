#pragma once

#include <span>
#include <string>
#include <vector>

#include "analysis/backtest.h"
#include "analysis/law_backtest.h"
#include "common/json.h"

// Back-tests of slopes and laws in one table (docs/science.md, "Back-test"). Pure functions.
namespace allometry::analysis {

// A law asked on the axes of a slope, fitted to the sizes' means: kCompute and kBroken of U against F, P or seconds;
// kSigmoid and kExponential of D against U. Named after the form, "compute-huber" for Huber's estimator. It refuses
// what the fit's certificate fails, and gives no interval. kParametersTokens and kTied have two sizes and are not among
// them.
BacktestForm LawOnAxes(LawForm form, LawMethod method);

struct BacktestStudyRequest {
  BacktestRequest slopes;
  // Names: "line", those of laws, and those of laws with "-huber". Empty: all.
  std::vector<std::string> forms;
};

// kParametersTokens or kTied of one architecture, fitted without its points of most compute 6 N D.
struct TwoSizeBacktest {
  std::string architecture;
  std::string size;  // that was asked for
  LawBacktestRow row;
  double measured = 0;  // mean loss there; 0 when refused
};

// One form asked for the largest size of one architecture, in nats or as a score: of both kinds alike.
struct StudiedForecast {
  std::string form, architecture;
  std::string axes;  // "F,U"; "ND,U" of laws of two sizes
  std::string size;
  int fitted = 0;                                            // sizes, or points of a law of two sizes
  std::optional<double> forecast, measured, relative_error;  // (forecast - measured) / |measured|
  std::optional<bool> in_seed_interval, in_line_interval;
  std::string refused;
};

// Relative errors of one form on one pair of axes, over the architectures.
struct ForecastErrors {
  std::string form, axes;
  int asked = 0, refused = 0;
  std::optional<double> median, largest;  // of absolute values
  std::optional<double> mean;             // signed
};

struct BacktestStudy {
  BacktestStudyRequest request;
  BacktestResult one_size;
  std::vector<TwoSizeBacktest> two_sizes;  // by architecture and form
  std::vector<StudiedForecast> forecasts;  // of both
  std::vector<ForecastErrors> errors;      // by axes and form, the smallest median first
  std::vector<LeftOut> left_out;
};

// Errors as Backtest; kInvalidArgument: an unknown form.
common::Result<BacktestStudy> StudyBacktests(const records::Table& table, const BacktestStudyRequest& request);

common::Json ToJson(const BacktestStudy& study);

}  // namespace allometry::analysis
