#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "common/result.h"
#include "report/report.h"

namespace allometry::report {

// Writes NAME.vl.json (the specification) and NAME.csv (its data) for each figure into a folder, which is created.
// Errors as common/files.h.
common::Status WriteFigureData(const Report& report, const std::filesystem::path& folder);

// What a page needs besides the report itself.
struct Drawings {
  std::map<std::string, std::string> svg;  // by the figure's name
  std::string javascript;                  // Vega, Vega-Lite and Vega-Embed as one script; defines vegaEmbed
};

// Draws every figure: writes NAME.svg and NAME.png beside what WriteFigureData writes. An empty folder keeps no files.
// Runs `python`, an interpreter that has vl-convert-python, to its end; takes about a quarter of a second a figure.
// kFailedPrecondition: there is no such interpreter, it lacks the package, or it could not draw; the message says what
// it said and how to install it. Otherwise errors as common/files.h.
common::Result<Drawings> RenderFigures(const Report& report, const std::filesystem::path& folder,
                                       const std::filesystem::path& python);

// The interpreter of deploy/install-deps.sh: bin/python in $ALLOMETRY_DEPS, else in the folder of dependencies that
// this program was built with.
std::filesystem::path DefaultPython();

}  // namespace allometry::report
