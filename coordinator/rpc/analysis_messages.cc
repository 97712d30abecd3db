#include "coordinator/rpc/analysis_messages.h"

namespace allometry::coordinator {

common::Result<analysis::SlopesRequest> SlopesRequestOf(const v1::SlopesRequest& request,
                                                        analysis::FlopConvention default_flops) {
  analysis::SlopesRequest out;
  out.filter = request.filter();
  out.exclude = ToVector(request.exclude());
  ALLO_ASSIGN_OR_RETURN(out.transform, analysis::ParseTransform(request.transform()));
  ALLO_ASSIGN_OR_RETURN(out.flops, analysis::ParseFlopConvention(request.flops()));
  if (request.flops().empty()) out.flops = default_flops;
  ALLO_ASSIGN_OR_RETURN(out.parameters, analysis::ParseParameterConvention(request.parameters()));
  if (request.has_confidence()) out.confidence = request.confidence();
  out.baseline = request.baseline();
  out.per_task = request.per_task();
  out.tasks = ToVector(request.tasks());
  return out;
}

void FillDownstream(const analysis::Downstream& downstream, v1::Downstream* out) {
  out->set_definition(analysis::DefinitionName(downstream.definition));
  for (const std::string& part : downstream.parts) out->add_parts(part);
  out->set_note(downstream.note);
}

}  // namespace allometry::coordinator
