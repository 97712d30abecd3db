#pragma once

#include <string>

#include "report/report.h"

namespace allometry::report {

// The report as Markdown. `figures`: where the drawings lie, as a path from the file that the text goes into, so that
// they are shown ("figures" gives figures/NAME.png); empty: captions alone.
std::string ToMarkdown(const Report& report, const std::string& figures);

}  // namespace allometry::report
