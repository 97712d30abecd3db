#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "analysis/slopes.h"
#include "common/json.h"
#include "common/result.h"
#include "common/table.h"
#include "records/curves.h"
#include "records/records.h"

// The report of a study, as data: the tables and figures of Tay et al. 2022 (arXiv 2207.10551) with every number's
// interval, flags and conventions (docs/science.md, "Report"). Pure functions.
namespace allometry::report {

struct ReportRequest {
  std::string title;               // "": the sweeps' names
  analysis::SlopesRequest slopes;  // filter, exclusions, conventions, confidence, tasks; for all that is computed.
                                   // Its baseline: "" is `transformer`, or the first architecture where there is none
  uint64_t seed = 0;               // of draws and bootstraps
  int draws = 10'000;              // of frontiers and ranks, 0 to 10,000,000
  int replicates = 1000;           // of the laws' bootstraps; 0: no intervals
  std::string data_version;        // of the database that was read, for the reader; may be empty
};

// A picture: a table whose rows a Vega-Lite view draws.
struct Figure {
  std::string name;  // [a-z0-9_]+, unique within a report; names its files
  std::string title, caption;
  common::Table data;
  common::Json view;  // Vega-Lite 5 without $schema and data
};

// The whole Vega-Lite specification, with the rows of the table inline as objects by column.
common::Json Specification(const Figure& figure);

struct TitledTable {
  std::string title;
  common::Table table;  // its name is unique within a report
};

struct Section {
  std::string name;  // [a-z0-9_]+, unique within a report
  std::string title;
  std::vector<std::string> text;  // sentences: what is shown, by which conventions; of what is not there, why
  std::vector<Figure> figures;
  std::vector<TitledTable> tables;
};

struct Report {
  std::string title;
  std::string summary;      // a sentence
  common::Json provenance;  // what was read and by which conventions (docs/science.md)
  std::vector<Section> sections;
};

// An analysis that refuses is a sentence in its section. `curves` may be empty; those of cells that are not in the
// table are not drawn. kInvalidArgument and kNotFound: the request, as of analysis::Slopes, Pareto and FitLaw;
// kFailedPrecondition: no usable cell at all.
common::Result<Report> BuildReport(const records::Table& table, const std::vector<records::Curve>& curves,
                                   const ReportRequest& request);

// The series that BuildReport draws, and to how many points it thins a line at most: what LoadCurves is asked for.
extern const std::vector<std::string> kCurveSeries;
inline constexpr size_t kCurvePoints = 150;

// One JSON document, from which the report comes back as it was.
common::Json ToJson(const Report& report);
// kInvalidArgument: not of that form, or of a newer program.
common::Result<Report> ReportFromJson(const common::Json& json);

}  // namespace allometry::report
