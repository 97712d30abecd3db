#pragma once

#include <string>

#include "report/report.h"

namespace allometry::report {

// The report's sections as LaTeX to \input: booktabs tables, over pages where they are long, labelled tab:NAME, and
// figures labelled fig:NAME. Needs the packages booktabs, longtable and graphicx and UTF-8 input. `figures` as in
// ToMarkdown; empty: no figures.
std::string ToLatex(const Report& report, const std::string& figures);

}  // namespace allometry::report
