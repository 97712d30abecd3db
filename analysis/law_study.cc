#include "analysis/law_study.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "analysis/json_parts.h"
#include "analysis/laws_json.h"
#include "analysis/mean.h"
#include "common/table.h"

namespace allometry::analysis {
namespace {

using common::Json;
using common::Result;
using records::Record;

constexpr const char* kAllTogether = "*";

// What one form reads of a record.
class LawPointReader {
 public:
  LawPointReader(LawForm form, const LawPointOptions& options, const std::vector<std::string>& parts,
                 LeftOutList* left_out)
      : form_(form), options_(options), parts_(parts), left_out_(left_out) {}

  std::optional<LawPoint> Read(const Record& record) const {
    const std::optional<double> x = X(record);
    const std::optional<double> tokens = HasTokens(form_) ? Take(record, "tokens", Metric(record, "tokens")) : 0.0;
    const std::optional<double> y = Y(record);
    if (!x || !tokens || !y) return std::nullopt;
    return LawPoint{*x, *tokens, *y};
  }

 private:
  static Measured Metric(const Record& record, const char* name) { return MetricValue(record, name, true); }

  std::optional<double> Take(const Record& record, const std::string& measure, const Measured& measured) const {
    if (!measured.value) left_out_->Add(record, measure, measured.missing);
    return measured.value;
  }

  std::optional<double> Loss(const Record& record) const {
    return Take(record, "upstream", Metric(record, "validation_loss"));
  }

  std::optional<double> X(const Record& record) const {
    if (HasTokens(form_)) return Take(record, "parameters", Metric(record, MetricOf(options_.slopes.parameters)));
    if (PredictsLoss(form_)) return Take(record, "flops", Metric(record, MetricOf(options_.slopes.flops)));
    return Loss(record);
  }

  std::optional<double> Y(const Record& record) const {
    if (PredictsLoss(form_)) return Loss(record);
    const auto score = Take(record, options_.score, QualityValue(record, options_.score, parts_));
    return score && form_ == LawForm::kExponential ? std::optional(1 - *score) : score;
  }

  LawForm form_;
  const LawPointOptions& options_;
  const std::vector<std::string>& parts_;
  LeftOutList* left_out_;
};

LawPoint MeanOf(const std::vector<LawPoint>& points) {
  LawPoint mean;
  const auto n = static_cast<double>(points.size());
  for (const LawPoint& p : points) mean.x += p.x / n, mean.tokens += p.tokens / n, mean.y += p.y / n;
  return mean;
}

void AddGroup(const CellGroup& group, const LawPointReader& reader, const LawPointOptions& options,
              StudiedPoints* out) {
  const std::string before = options.pooled ? group.architecture + "-" : "";
  std::vector<LawPoint> points;
  for (const Record* cell : group.cells) {
    const std::optional<LawPoint> point = reader.Read(*cell);
    if (!point) continue;
    points.push_back(*point);
    if (!options.runs) continue;
    out->points.push_back(*point);
    out->names.push_back(cell->cell);
  }
  if (options.runs || points.empty()) return;
  out->points.push_back(MeanOf(points));
  out->names.push_back(before + group.size);
}

void SortByX(StudiedPoints* studied) {
  std::vector<size_t> order(studied->points.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {},
                           [&](size_t i) { return std::pair(studied->points[i].x, studied->points[i].tokens); });
  StudiedPoints sorted{studied->architecture, {}, {}};
  for (const size_t i : order) {
    sorted.names.push_back(studied->names[i]);
    sorted.points.push_back(studied->points[i]);
  }
  *studied = std::move(sorted);
}

bool TokensVary(const Selection& selection) {
  std::set<double> tokens;
  for (const CellGroup& group : selection.groups)
    for (const Record* cell : group.cells)
      if (const Measured value = MetricValue(*cell, "tokens", true); value.value) tokens.insert(*value.value);
  return tokens.size() > 1;
}

bool HasScores(const Selection& selection) {
  return std::ranges::any_of(selection.groups, [](const CellGroup& group) {
    return std::ranges::any_of(group.cells, [](const Record* cell) { return !cell->scores.empty(); });
  });
}

std::vector<LawForm> FormsFor(const Selection& selection) {
  std::vector<LawForm> forms = {LawForm::kCompute};
  if (TokensVary(selection)) forms.push_back(LawForm::kParametersTokens);
  if (HasScores(selection)) {
    forms.push_back(LawForm::kSigmoid);
    forms.push_back(LawForm::kExponential);
  }
  return forms;
}

void AddAllocations(const LawStudyRequest& request, StudiedLaw* law) {
  if (!request.budget_flops || law->form != LawForm::kParametersTokens) return;
  for (const LawFit& fit : law->fit->fits) {
    const auto result = Allocate(fit, *request.budget_flops, request.options.confidence);
    law->allocations.push_back(result ? StudiedAllocation{*result, ""}
                                      : StudiedAllocation{std::nullopt, result.error().message});
  }
}

StudiedLaw Study(LawForm form, StudiedPoints points, const LawStudyRequest& request) {
  StudiedLaw law{form, std::move(points), {}, {}, {}};
  Result<LawResult> fit = FitLaw(form, law.points.points, request.options);
  if (!fit) {
    law.refused = fit.error().message;
    return law;
  }
  law.fit = std::move(*fit);
  AddAllocations(request, &law);
  return law;
}

StudiedIsoFlop StudyIsoFlop(const StudiedPoints& points) {
  if (points.points.empty()) return {points.architecture, std::nullopt, "no cell has parameters, tokens and a loss"};
  Result<IsoFlopResult> result = FitIsoFlop(points.points);
  if (!result) return {points.architecture, std::nullopt, result.error().message};
  return {points.architecture, std::move(*result), ""};
}

// Options that would fail for every law are an error at once.
common::Status CheckLawStudy(const LawStudyRequest& request) {
  ALLO_RETURN_IF_ERROR(CheckLawOptions(request.options));
  if (request.budget_flops && !(*request.budget_flops > 0 && std::isfinite(*request.budget_flops)))
    return common::InvalidArgument("the budget must be a positive number of training FLOPs, as in 1e21");
  return common::Ok();
}

Json PointsJson(const StudiedPoints& studied, LawForm form) {
  Json points = Json::array();
  for (size_t i = 0; i < studied.points.size(); ++i) {
    const LawPoint& p = studied.points[i];
    points.push_back({{"name", studied.names[i]},
                      {"x", common::JsonNumber(p.x)},
                      {"tokens", HasTokens(form) ? common::JsonNumber(p.tokens) : Json(nullptr)},
                      {"y", common::JsonNumber(p.y)}});
  }
  return points;
}

Json LawJson(const StudiedLaw& law) {
  Json allocations = Json::array();
  for (const StudiedAllocation& one : law.allocations)
    allocations.push_back({{"result", one.result ? ToJson(*one.result) : Json(nullptr)}, {"refused", one.refused}});
  return {{"architecture", law.points.architecture},
          {"form", LawFormName(law.form)},
          {"refused", law.refused},
          {"fit", law.fit ? ToJson(*law.fit) : Json(nullptr)},
          {"allocations", allocations},
          {"points", PointsJson(law.points, law.form)}};
}

}  // namespace

Result<std::vector<StudiedPoints>> PointsOfForm(const Selection& selection, LawForm form,
                                                const LawPointOptions& options, LeftOutList* left_out) {
  if (!PredictsLoss(form)) ALLO_RETURN_IF_ERROR(CheckQuality(options.score, selection));
  if (!PredictsLoss(form) && options.score == "upstream")
    return common::InvalidArgument("a law of scores takes a score: downstream, a task or an average");
  const LawPointReader reader(form, options, selection.downstream.parts, left_out);
  std::vector<StudiedPoints> out;
  for (const std::string& architecture :
       options.pooled ? std::vector<std::string>{kAllTogether} : selection.architectures)
    out.push_back({architecture, {}, {}});
  for (const CellGroup& group : selection.groups) {
    const std::string& name = options.pooled ? kAllTogether : group.architecture;
    AddGroup(group, reader, options, &*std::ranges::find(out, name, &StudiedPoints::architecture));
  }
  for (StudiedPoints& studied : out) SortByX(&studied);
  return out;
}

Result<LawStudy> StudyLaws(const records::Table& table, const LawStudyRequest& wanted) {
  LawStudy study{.request = wanted};
  LawStudyRequest& request = study.request;
  request.options.confidence = request.points.slopes.confidence;
  ALLO_RETURN_IF_ERROR(CheckLawStudy(request));
  const SlopesRequest& of_cells = request.points.slopes;
  ALLO_ASSIGN_OR_RETURN(const RequestedCells cells, FilteredCells(table, of_cells.filter, of_cells.exclude));
  ALLO_ASSIGN_OR_RETURN(const Selection selection, SelectCells(cells, of_cells.tasks));
  if (selection.groups.empty()) return NoCells(selection);
  if (request.forms.empty()) request.forms = FormsFor(selection);
  study.downstream = selection.downstream;
  LeftOutList left_out(selection.left_out);
  for (const LawForm form : request.forms) {
    ALLO_ASSIGN_OR_RETURN(auto groups, PointsOfForm(selection, form, request.points, &left_out));
    for (StudiedPoints& points : groups) study.laws.push_back(Study(form, std::move(points), request));
  }
  std::ranges::stable_sort(study.laws, [&](const StudiedLaw& a, const StudiedLaw& b) {
    const auto place = [&](const StudiedLaw& law) {
      return std::ranges::find(selection.architectures, law.points.architecture) - selection.architectures.begin();
    };
    return place(a) < place(b);
  });
  if (request.isoflop) {
    ALLO_ASSIGN_OR_RETURN(const auto groups,
                          PointsOfForm(selection, LawForm::kParametersTokens, request.points, &left_out));
    for (const StudiedPoints& points : groups) study.isoflop.push_back(StudyIsoFlop(points));
  }
  study.left_out = left_out.entries();
  return study;
}

common::Json ToJson(const LawStudy& study) {
  const LawStudyRequest& request = study.request;
  Json json = {{"flops", FlopConventionName(request.points.slopes.flops)},
               {"parameters", ParameterConventionName(request.points.slopes.parameters)},
               {"confidence", request.options.confidence},
               {"filter", request.points.slopes.filter},
               {"tasks", study.downstream.parts},
               {"downstream", DownstreamJson(study.downstream)},
               {"points_are", request.points.runs ? "runs" : "means over seeds"},
               {"pooled", request.points.pooled},
               {"score", request.points.score},
               {"budget_flops", OrNull(request.budget_flops)},
               {"laws", Json::array()},
               {"isoflop", Json::array()},
               {"left_out", LeftOutJson(study.left_out)}};
  for (const StudiedLaw& law : study.laws) json["laws"].push_back(LawJson(law));
  for (const StudiedIsoFlop& one : study.isoflop)
    json["isoflop"].push_back({{"architecture", one.architecture},
                               {"refused", one.refused},
                               {"result", one.result ? ToJson(*one.result) : Json(nullptr)}});
  return json;
}

}  // namespace allometry::analysis
