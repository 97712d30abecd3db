#pragma once

#include <optional>
#include <string>
#include <vector>

#include "allometry/v1/analysis_service.pb.h"
#include "analysis/slopes.h"
#include "common/result.h"

// What the answers of AnalysisService have in common, from the analysis' values to messages and back.
namespace allometry::coordinator {

template <typename Strings>
std::vector<std::string> ToVector(const Strings& strings) {
  return {strings.begin(), strings.end()};
}

// kInvalidArgument: an unknown transform or convention. An empty `flops` is `default_flops`.
common::Result<analysis::SlopesRequest> SlopesRequestOf(
    const v1::SlopesRequest& request, analysis::FlopConvention default_flops = analysis::FlopConvention::kForward);

void FillDownstream(const analysis::Downstream& downstream, v1::Downstream* out);

template <typename Response>
void FillLeftOut(const std::vector<analysis::LeftOut>& left_out, Response* response) {
  for (const analysis::LeftOut& one : left_out) {
    v1::LeftOut* out = response->add_left_out();
    out->set_cell(one.cell);
    out->set_reason(one.measure.empty() || one.measure == "all" ? one.reason : one.measure + ": " + one.reason);
  }
}

}  // namespace allometry::coordinator
