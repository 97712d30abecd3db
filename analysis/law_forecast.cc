#include "analysis/law_forecast.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "analysis/answers_json.h"
#include "analysis/json_parts.h"
#include "analysis/law_study.h"
#include "analysis/laws_json.h"
#include "analysis/mean.h"
#include "common/ids.h"
#include "common/table.h"

namespace allometry::analysis {
namespace {

using common::Json;
using common::Result;

constexpr const char* kHuberSuffix = "-huber";
constexpr const char* kTwoSizeAxes = "ND,U";

bool IsCost(Axis axis) { return axis == Axis::kFlops || axis == Axis::kParameters || axis == Axis::kSeconds; }

bool LawTakes(LawForm form, const AxisPair& axes) {
  if (HasTokens(form)) return false;
  if (PredictsLoss(form)) return IsCost(axes.x) && axes.y == Axis::kUpstream;
  return axes == AxisPair{Axis::kUpstream, Axis::kDownstream};
}

// x of a law: a cost in its units, or a loss.
double LawX(double x, const ForecastRequest& request) {
  const double value = ValueOfX(x, request.axes.x, request.transform);
  return request.axes.x == Axis::kUpstream ? -value : value;
}

// kExponential speaks of errors, the axes of scores.
double Turned(double y, LawForm form) { return form == LawForm::kExponential ? 1 - y : y; }

LawPoint PointOfSize(const SizeSamples& size, LawForm form, const ForecastRequest& request) {
  return {LawX(Mean(size.x), request), 0, Turned(NaturalValue(Mean(size.y), request.axes, request.transform), form)};
}

std::string FailuresText(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : "; ") + part;
  return text;
}

Forecast ForecastByLaw(LawForm form, LawMethod method, const ForecastRequest& request) {
  Forecast out;
  std::vector<LawPoint> points;
  for (const SizeSamples& size : request.fitted) points.push_back(PointOfSize(size, form, request));
  const auto fits = FitLaw(form, points, {.replicates = 0, .threads = 1});
  if (!fits) {
    out.refused = "without its largest size: " + fits.error().message;
    return out;
  }
  const LawFit& fit = *std::ranges::find(fits->fits, method, &LawFit::method);
  if (!fit.converged()) {
    out.refused = "not converged: " + FailuresText(fit.certificate.failures);
    return out;
  }
  const double y = EvaluateLaw(form, fit.Parameters(), LawX(Mean(request.asked.x), request), 0);
  out.value = AxisValueOf(Turned(y, form), request.axes, request.transform);
  if (!std::isfinite(*out.value)) out = {.refused = "the law gives no value there"};
  return out;
}

constexpr LawForm kOnAxes[] = {LawForm::kCompute, LawForm::kBroken, LawForm::kSigmoid, LawForm::kExponential};
constexpr LawForm kOfTwoSizes[] = {LawForm::kParametersTokens, LawForm::kTied};

std::vector<BacktestForm> AllForms() {
  std::vector<BacktestForm> forms = {LineForm()};
  for (const LawForm form : kOnAxes) {
    if (form == LawForm::kCompute) forms.push_back(LawOnAxes(form, LawMethod::kHuber));
    forms.push_back(LawOnAxes(form, LawMethod::kProjection));
  }
  return forms;
}

bool IsWanted(const std::vector<std::string>& wanted, const std::string& name) {
  return wanted.empty() || std::ranges::count(wanted, name) > 0;
}

common::Status CheckForms(const std::vector<std::string>& wanted) {
  std::vector<std::string> known;
  for (const BacktestForm& form : AllForms()) known.push_back(form.name);
  for (const LawForm form : kOfTwoSizes) known.emplace_back(LawFormName(form));
  for (const std::string& name : wanted) {
    if (std::ranges::count(known, name) > 0) continue;
    std::string list;
    for (const std::string& one : known) list += " " + one;
    return common::InvalidArgument("unknown form '" + name + "': use" + list);
  }
  return common::Ok();
}

std::vector<LawForm> WantedTwoSizeForms(const std::vector<std::string>& wanted) {
  std::vector<LawForm> forms;
  for (const LawForm form : kOfTwoSizes)
    if (IsWanted(wanted, LawFormName(form))) forms.push_back(form);
  return forms;
}

double Compute(const LawPoint& point) { return 6 * point.x * point.tokens; }

void AskForMostCompute(const StudiedPoints& studied, const std::vector<LawForm>& forms, const LawOptions& options,
                       BacktestStudy* study) {
  if (studied.points.empty()) return;
  const size_t largest =
      static_cast<size_t>(std::ranges::max_element(studied.points, {}, Compute) - studied.points.begin());
  const double most = Compute(studied.points[largest]);
  double cut = 0, measured = 0, asked = 0;
  for (const LawPoint& point : studied.points) {
    if (Compute(point) < most) cut = std::max(cut, Compute(point));
    if (Compute(point) == most) measured += point.y, ++asked;
  }
  const auto result = BacktestLaws(forms, studied.points, cut, options);
  if (!result) {
    for (const LawForm form : forms) {
      LawBacktestRow row{.form = form};
      row.refused = result.error().message;
      study->two_sizes.push_back({studied.architecture, studied.names[largest], row, 0});
    }
    return;
  }
  for (const LawBacktestRow& row : result->rows)
    study->two_sizes.push_back(
        {studied.architecture, studied.names[largest], row, row.refused.empty() ? measured / asked : 0});
}

// Where all cells saw one number of tokens, laws of two sizes are not asked unless they were named.
bool TokensDiffer(const std::vector<StudiedPoints>& groups) {
  std::optional<double> first;
  for (const StudiedPoints& group : groups)
    for (const LawPoint& point : group.points)
      if (point.tokens != first.value_or(point.tokens))
        return true;
      else
        first = point.tokens;
  return false;
}

common::Status AddTwoSizes(const records::Table& table, BacktestStudy* study) {
  const std::optional<AxisPair>& axes = study->request.slopes.axes;
  const std::vector<LawForm> forms = WantedTwoSizeForms(study->request.forms);
  if (forms.empty() || (axes && axes->y != Axis::kUpstream)) return common::Ok();
  const SlopesRequest& of_cells = study->request.slopes.slopes;
  ALLO_ASSIGN_OR_RETURN(const RequestedCells cells, FilteredCells(table, of_cells.filter, of_cells.exclude));
  ALLO_ASSIGN_OR_RETURN(const Selection selection, SelectCells(cells, of_cells.tasks));
  LeftOutList left_out(study->left_out);
  ALLO_ASSIGN_OR_RETURN(const auto groups,
                        PointsOfForm(selection, LawForm::kParametersTokens, {.slopes = of_cells}, &left_out));
  if (study->request.forms.empty() && !TokensDiffer(groups)) return common::Ok();
  for (const StudiedPoints& group : groups) AskForMostCompute(group, forms, {.replicates = 0}, study);
  study->left_out = left_out.entries();
  return common::Ok();
}

StudiedForecast FlatRow(const BacktestRow& row) {
  return {row.form,
          row.architecture,
          AxisPairName(row.axes),
          row.size,
          row.fitted_sizes,
          row.forecast_value,
          row.measured_value,
          row.relative_error,
          row.in_seed_interval,
          row.in_line_interval,
          row.refused};
}

// A fit that did not converge forecasts nothing.
StudiedForecast FlatRow(const TwoSizeBacktest& one) {
  const LawBacktestRow& row = one.row;
  StudiedForecast out;
  out.form = LawFormName(row.form);
  if (row.method == LawMethod::kHuber && row.refused.empty()) out.form += kHuberSuffix;
  out.architecture = one.architecture;
  out.axes = kTwoSizeAxes;
  out.size = one.size;
  out.fitted = static_cast<int>(row.fitted);
  out.refused = row.failures.empty() ? row.refused : "not converged: " + FailuresText(row.failures);
  if (row.refused.empty()) out.measured = one.measured;
  if (!out.refused.empty()) return out;
  out.forecast = row.predicted.front();
  out.relative_error = row.mean_error;
  return out;
}

std::vector<ForecastErrors> ErrorTable(const std::vector<StudiedForecast>& forecasts) {
  std::map<std::pair<std::string, std::string>, std::vector<const StudiedForecast*>> groups;
  std::vector<std::string> order;  // of axes
  for (const StudiedForecast& one : forecasts) {
    groups[{one.axes, one.form}].push_back(&one);
    if (std::ranges::count(order, one.axes) == 0) order.push_back(one.axes);
  }
  std::vector<ForecastErrors> table;
  for (const auto& [key, members] : groups) {
    ForecastErrors errors{key.second, key.first, static_cast<int>(members.size()), 0, {}, {}, {}};
    std::vector<double> signed_errors, sizes;
    for (const StudiedForecast* one : members) {
      errors.refused += !one->forecast;
      if (!one->relative_error) continue;
      signed_errors.push_back(*one->relative_error);
      sizes.push_back(std::abs(*one->relative_error));
    }
    if (!sizes.empty()) {
      errors.mean = Mean(signed_errors);
      errors.largest = std::ranges::max(sizes);
      errors.median = Median(sizes);
    }
    table.push_back(std::move(errors));
  }
  std::ranges::stable_sort(table, {}, [&](const ForecastErrors& errors) {
    const auto place = std::ranges::find(order, errors.axes) - order.begin();
    return std::pair(place, errors.median.value_or(std::numeric_limits<double>::infinity()));
  });
  return table;
}

Json ForecastJson(const StudiedForecast& one) {
  const auto flag = [](const std::optional<bool>& value) { return value ? Json(*value) : Json(nullptr); };
  return {{"form", one.form},
          {"architecture", one.architecture},
          {"axes", one.axes},
          {"size", one.size},
          {"fitted", one.fitted},
          {"forecast", OrNull(one.forecast)},
          {"measured", OrNull(one.measured)},
          {"relative_error", OrNull(one.relative_error)},
          {"in_seed_interval", flag(one.in_seed_interval)},
          {"in_line_interval", flag(one.in_line_interval)},
          {"refused", one.refused}};
}

Json ErrorsJson(const ForecastErrors& errors) {
  return {{"form", errors.form},
          {"axes", errors.axes},
          {"asked", errors.asked},
          {"refused", errors.refused},
          {"median_absolute_relative_error", OrNull(errors.median)},
          {"largest_absolute_relative_error", OrNull(errors.largest)},
          {"mean_relative_error", OrNull(errors.mean)}};
}

}  // namespace

BacktestForm LawOnAxes(LawForm form, LawMethod method) {
  return {LawFormName(form) + std::string(method == LawMethod::kHuber ? kHuberSuffix : ""),
          [form, method](const ForecastRequest& request) { return ForecastByLaw(form, method, request); },
          [form](const AxisPair& axes) { return LawTakes(form, axes); }};
}

Result<BacktestStudy> StudyBacktests(const records::Table& table, const BacktestStudyRequest& request) {
  ALLO_RETURN_IF_ERROR(CheckForms(request.forms));
  std::vector<BacktestForm> forms = AllForms();
  std::erase_if(forms, [&](const BacktestForm& form) { return !IsWanted(request.forms, form.name); });
  BacktestStudy study{.request = request};
  ALLO_ASSIGN_OR_RETURN(study.one_size, Backtest(table, request.slopes, forms));
  study.left_out = study.one_size.left_out;
  ALLO_RETURN_IF_ERROR(AddTwoSizes(table, &study));
  for (const BacktestRow& row : study.one_size.rows) study.forecasts.push_back(FlatRow(row));
  for (const TwoSizeBacktest& one : study.two_sizes) study.forecasts.push_back(FlatRow(one));
  study.errors = ErrorTable(study.forecasts);
  return study;
}

common::Json ToJson(const BacktestStudy& study) {
  Json json = ToJson(study.one_size);
  json["forms"] = study.request.forms;
  json["two_sizes"] = Json::array();
  for (const TwoSizeBacktest& one : study.two_sizes) {
    Json row = ToJson(LawBacktestResult{0, {one.row}})["rows"][0];
    row["architecture"] = one.architecture;
    row["size"] = one.size;
    row["measured"] = one.row.refused.empty() ? common::JsonNumber(one.measured) : Json(nullptr);
    json["two_sizes"].push_back(std::move(row));
  }
  json["forecasts"] = Json::array();
  json["errors"] = Json::array();
  for (const StudiedForecast& one : study.forecasts) json["forecasts"].push_back(ForecastJson(one));
  for (const ForecastErrors& errors : study.errors) json["errors"].push_back(ErrorsJson(errors));
  json["left_out"] = LeftOutJson(study.left_out);
  return json;
}

}  // namespace allometry::analysis
