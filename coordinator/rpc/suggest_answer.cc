// Next runs, and the sweep file that runs them.

#include <algorithm>
#include <map>
#include <set>

#include "analysis/answers_json.h"
#include "analysis/law_suggest.h"
#include "analysis/suggest.h"
#include "coordinator/grid/sweep_yaml.h"
#include "coordinator/rpc/analysis_messages.h"
#include "coordinator/rpc/analyst.h"
#include "records/sqlite.h"

namespace allometry::coordinator {
namespace {

using common::Result;

constexpr int kDefaultCap = 5;

template <typename Wanted>
void FillWanted(const v1::SuggestRequest& request, Wanted* wanted) {
  wanted->architectures = ToVector(request.architectures());
  wanted->budget_flops = request.budget_flops();
  wanted->cap = request.cap() == 0 ? kDefaultCap : request.cap();
}

void FillCells(const std::vector<analysis::SuggestedCell>& cells, double flops, v1::SuggestResponse* response) {
  for (const analysis::SuggestedCell& cell : cells) {
    v1::SuggestedCell* out = response->add_cells();
    out->set_architecture(cell.architecture);
    out->set_size(cell.size);
    out->set_seed(cell.seed);
    out->set_flops(cell.flops);
  }
  response->set_flops(flops);
}

v1::SuggestedTarget TargetOf(const std::string& architecture, const std::string& name,
                             const std::optional<double>& value, const std::optional<double>& now,
                             const std::optional<double>& after, const std::string& refused) {
  v1::SuggestedTarget out;
  out.set_architecture(architecture);
  out.set_name(name);
  if (value) out.set_value(*value);
  if (now) out.set_half_width_now(*now);
  if (after) out.set_half_width_after(*after);
  out.set_refused(refused);
  return out;
}

v1::SuggestedSize SizeOf(const std::string& architecture, double at, double flops, bool affordable, double now,
                         double after) {
  v1::SuggestedSize out;
  out.set_architecture(architecture);
  out.set_at(at);
  out.set_flops(flops);
  out.set_affordable(affordable);
  out.set_half_width_now(now);
  out.set_half_width_after(after);
  return out;
}

template <typename Answer>
void FillRest(const Answer& answer, v1::SuggestResponse* response) {
  for (const std::string& note : answer.notes) response->add_notes(note);
  FillDownstream(answer.downstream, response->mutable_downstream());
  FillLeftOut(answer.left_out, response);
  response->set_json(analysis::ToJson(answer).dump());
}

Result<v1::SuggestResponse> ForSlopes(const records::Table& table, const v1::SuggestRequest& request) {
  analysis::SuggestRequest wanted;
  ALLO_ASSIGN_OR_RETURN(wanted.slopes, SlopesRequestOf(request.slopes()));
  ALLO_ASSIGN_OR_RETURN(wanted.axes, analysis::ParseAxisPair(request.axes()));
  FillWanted(request, &wanted);
  if (request.has_delta()) wanted.delta = request.delta();
  ALLO_ASSIGN_OR_RETURN(const auto suggested, analysis::Suggest(table, wanted));
  v1::SuggestResponse response;
  FillCells(suggested.cells, suggested.flops, &response);
  const std::string axes = analysis::AxisPairName(wanted.axes);
  for (const auto& slope : suggested.slopes)
    *response.add_targets() =
        TargetOf(slope.architecture, axes, slope.alpha, slope.half_now, slope.half_after, slope.refused);
  for (const auto& size : suggested.new_sizes)
    *response.add_new_sizes() =
        SizeOf(size.architecture, analysis::ValueOfX(size.x, wanted.axes.x, wanted.slopes.transform), size.flops,
               size.affordable, size.line_half_now, size.line_half_after);
  for (const auto& row : suggested.power) {
    v1::PowerRow* out = response.add_power();
    out->set_sizes(row.sizes);
    out->set_seeds(row.seeds.value_or(0));
    out->set_smallest_difference(row.smallest_difference);
  }
  FillRest(suggested, &response);
  return response;
}

Result<v1::SuggestResponse> ForLaws(const records::Table& table, const v1::SuggestRequest& request) {
  analysis::LawSuggestRequest wanted;
  ALLO_ASSIGN_OR_RETURN(wanted.slopes, SlopesRequestOf(request.slopes(), analysis::FlopConvention::kTraining));
  ALLO_ASSIGN_OR_RETURN(wanted.form, analysis::ParseLawForm(request.law()));
  if (request.has_delta()) return common::InvalidArgument("power is for slopes: delta does not go with a law");
  FillWanted(request, &wanted);
  ALLO_ASSIGN_OR_RETURN(const auto suggested, analysis::SuggestForLaws(table, wanted));
  v1::SuggestResponse response;
  FillCells(suggested.cells, suggested.flops, &response);
  for (const auto& e : suggested.exponents)
    *response.add_targets() = TargetOf(e.architecture, e.name, e.value, e.half_now, e.half_after, e.refused);
  for (const auto& size : suggested.new_sizes)
    *response.add_new_sizes() =
        SizeOf(size.architecture, size.x, size.flops, size.affordable, size.half_now, size.half_after);
  FillRest(suggested, &response);
  return response;
}

// Sizes of a sweep file carry no shape of their own, so a suggested size is the label of a record.
Result<std::string> SweepOfCells(const records::Table& table, const v1::SuggestResponse& suggested) {
  std::map<std::pair<std::string, std::string>, std::set<std::string>> sweeps;  // by architecture and size
  for (const records::Record& record : table)
    sweeps[{record.architecture, analysis::SizeLabel(record)}].insert(record.sweep);
  std::set<std::string> common_to_all;
  bool first = true;
  for (const v1::SuggestedCell& cell : suggested.cells()) {
    const std::set<std::string>& here = sweeps[{cell.architecture(), cell.size()}];
    if (first) common_to_all = here;
    std::erase_if(common_to_all, [&](const std::string& sweep) { return !here.contains(sweep); });
    first = false;
  }
  if (common_to_all.empty())
    return common::FailedPrecondition(
        "no single sweep has all sizes of the suggested cells: ask for one sweep at a time to get its sweep file");
  return *common_to_all.begin();
}

}  // namespace

// The sweep that the cells belong to, with its name, seeds and `only` changed.
Result<std::string> Analyst::NextSweep(const records::Table& table, const v1::SuggestResponse& suggested) const {
  if (suggested.cells().empty())
    return common::FailedPrecondition("no cell is suggested, so there is no sweep to write");
  ALLO_ASSIGN_OR_RETURN(const std::string sweep, SweepOfCells(table, suggested));
  ALLO_ASSIGN_OR_RETURN(const std::string spec_json, records::LoadSweepSpec(database_, sweep));
  ALLO_ASSIGN_OR_RETURN(v1::SweepSpec spec, SweepFromJson(spec_json));
  std::set<uint64_t> seeds;
  spec.clear_only();
  for (const v1::SuggestedCell& cell : suggested.cells()) {
    seeds.insert(cell.seed());
    spec.add_only(cell.architecture() + "-" + cell.size() + "-s" + std::to_string(cell.seed()));
  }
  spec.mutable_seeds()->Assign(seeds.begin(), seeds.end());
  spec.set_name(spec.name() + "-next");
  return WriteSweep(spec);
}

Result<v1::SuggestResponse> Analyst::Suggest(const v1::SuggestRequest& request) const {
  ALLO_ASSIGN_OR_RETURN(const SharedTable table, Load(request.slopes().sweeps()));
  ALLO_ASSIGN_OR_RETURN(v1::SuggestResponse response,
                        request.law().empty() ? ForSlopes(*table, request) : ForLaws(*table, request));
  if (request.next_sweep()) {
    ALLO_ASSIGN_OR_RETURN(const std::string yaml, NextSweep(*table, response));
    response.set_sweep_yaml(yaml);
  }
  return response;
}

}  // namespace allometry::coordinator
