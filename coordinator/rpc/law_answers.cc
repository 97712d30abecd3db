// Laws and back-tests.

#include "analysis/law_forecast.h"
#include "analysis/law_study.h"
#include "coordinator/rpc/analysis_messages.h"
#include "coordinator/rpc/analyst.h"

namespace allometry::coordinator {
namespace {

using common::Result;

Result<analysis::LawStudyRequest> StudyRequestOf(const v1::FitRequest& request) {
  analysis::LawStudyRequest out;
  ALLO_ASSIGN_OR_RETURN(out.points.slopes, SlopesRequestOf(request.slopes(), analysis::FlopConvention::kTraining));
  for (const std::string& name : request.forms()) {
    ALLO_ASSIGN_OR_RETURN(const analysis::LawForm form, analysis::ParseLawForm(name));
    out.forms.push_back(form);
  }
  out.points.pooled = request.pooled();
  out.points.runs = request.runs();
  if (!request.score().empty()) out.points.score = request.score();
  if (request.has_budget_flops()) out.budget_flops = request.budget_flops();
  out.isoflop = request.isoflop();
  if (request.has_replicates()) out.options.replicates = request.replicates();
  if (request.seed() != 0) out.options.seed = request.seed();
  if (request.has_delta()) out.options.delta = request.delta();
  return out;
}

void FillParameter(const analysis::LawEstimate& estimate, v1::LawParameter* out) {
  out->set_name(estimate.name);
  out->set_value(estimate.value);
  out->set_standard_error(estimate.standard_error);
  if (!estimate.interval) return;
  out->set_low(estimate.interval->low);
  out->set_high(estimate.interval->high);
}

void FillAllocation(const analysis::StudiedAllocation& allocation, v1::Law* out) {
  out->set_no_optimal(allocation.refused);
  if (!allocation.result) return;
  v1::ComputeOptimal* optimal = out->mutable_optimal();
  optimal->set_parameters(allocation.result->at.parameters);
  optimal->set_tokens(allocation.result->at.tokens);
  optimal->set_loss(allocation.result->at.loss);
  if (const auto& range = allocation.result->parameters) {
    optimal->set_parameters_low(range->low);
    optimal->set_parameters_high(range->high);
  }
  if (const auto& range = allocation.result->tokens) {
    optimal->set_tokens_low(range->low);
    optimal->set_tokens_high(range->high);
  }
}

v1::Law NamedLaw(const analysis::StudiedLaw& law) {
  v1::Law out;
  out.set_architecture(law.points.architecture);
  out.set_form(analysis::LawFormName(law.form));
  out.set_points(static_cast<int>(law.points.points.size()));
  out.set_refused(law.refused);
  return out;
}

void FillLaws(const analysis::StudiedLaw& law, v1::FitResponse* response) {
  if (!law.fit) {
    *response->add_laws() = NamedLaw(law);
    return;
  }
  for (size_t i = 0; i < law.fit->fits.size(); ++i) {
    const analysis::LawFit& fit = law.fit->fits[i];
    v1::Law* out = response->add_laws();
    *out = NamedLaw(law);
    out->set_method(analysis::LawMethodName(fit.method));
    out->set_converged(fit.converged());
    for (const std::string& failure : fit.certificate.failures) out->add_failures(failure);
    for (const std::string& note : fit.certificate.notes) out->add_notes(note);
    for (const analysis::LawEstimate& estimate : fit.estimates) FillParameter(estimate, out->add_parameters());
    if (i < law.allocations.size()) FillAllocation(law.allocations[i], out);
  }
}

void FillForecast(const analysis::StudiedForecast& one, v1::BacktestRow* out) {
  out->set_form(one.form);
  out->set_architecture(one.architecture);
  out->set_axes(one.axes);
  out->set_size(one.size);
  out->set_fitted_sizes(one.fitted);
  if (one.forecast) out->set_forecast(*one.forecast);
  if (one.measured) out->set_measured(*one.measured);
  if (one.relative_error) out->set_relative_error(*one.relative_error);
  if (one.in_seed_interval) out->set_in_seed_interval(*one.in_seed_interval);
  if (one.in_line_interval) out->set_in_line_interval(*one.in_line_interval);
  out->set_refused(one.refused);
}

void FillErrors(const analysis::ForecastErrors& errors, v1::BacktestSummary* out) {
  out->set_form(errors.form);
  out->set_axes(errors.axes);
  out->set_asked(errors.asked);
  out->set_refused(errors.refused);
  if (errors.median) out->set_median_relative_error(*errors.median);
  if (errors.largest) out->set_largest_relative_error(*errors.largest);
  if (errors.mean) out->set_mean_relative_error(*errors.mean);
}

}  // namespace

Result<v1::FitResponse> Analyst::Fit(const v1::FitRequest& request) const {
  ALLO_ASSIGN_OR_RETURN(const auto wanted, StudyRequestOf(request));
  ALLO_ASSIGN_OR_RETURN(const SharedTable table, Load(request.slopes().sweeps()));
  ALLO_ASSIGN_OR_RETURN(const auto study, analysis::StudyLaws(*table, wanted));
  v1::FitResponse response;
  for (const analysis::StudiedLaw& law : study.laws) FillLaws(law, &response);
  FillDownstream(study.downstream, response.mutable_downstream());
  FillLeftOut(study.left_out, &response);
  response.set_json(analysis::ToJson(study).dump());
  return response;
}

Result<v1::BacktestResponse> Analyst::Backtest(const v1::BacktestRequest& request) const {
  analysis::BacktestStudyRequest wanted;
  ALLO_ASSIGN_OR_RETURN(wanted.slopes.slopes, SlopesRequestOf(request.slopes()));
  if (!request.axes().empty()) {
    ALLO_ASSIGN_OR_RETURN(wanted.slopes.axes, analysis::ParseAxisPair(request.axes()));
  }
  wanted.forms = ToVector(request.forms());
  ALLO_ASSIGN_OR_RETURN(const SharedTable table, Load(request.slopes().sweeps()));
  ALLO_ASSIGN_OR_RETURN(const auto study, analysis::StudyBacktests(*table, wanted));
  v1::BacktestResponse response;
  for (const analysis::StudiedForecast& one : study.forecasts) FillForecast(one, response.add_rows());
  for (const analysis::ForecastErrors& errors : study.errors) FillErrors(errors, response.add_summaries());
  FillDownstream(study.one_size.downstream, response.mutable_downstream());
  FillLeftOut(study.left_out, &response);
  response.set_json(analysis::ToJson(study).dump());
  return response;
}

}  // namespace allometry::coordinator
