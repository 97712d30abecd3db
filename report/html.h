#pragma once

#include <string>

#include "report/render_figures.h"
#include "report/report.h"

namespace allometry::report {

// The report as one HTML page that opens without a network: figures drawn as SVG, for readers without scripts and for
// print, and made interactive where scripts run. A content policy in the page forbids every fetch. `drawings` holds
// every figure of the report; throws std::out_of_range if one is missing.
std::string ToHtml(const Report& report, const Drawings& drawings);

}  // namespace allometry::report
