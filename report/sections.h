#pragma once

#include <optional>
#include <string>
#include <vector>

#include "analysis/measures.h"
#include "analysis/slopes.h"
#include "report/figure_parts.h"
#include "report/report.h"

// The sections of a report, one function each. They share what is prepared once: which cells take part, what the
// baseline is, how architectures look.
namespace allometry::report {

struct Study {
  ReportRequest request;  // filter and exclusions are applied to `table` already
  records::Table table;
  analysis::Selection selection;  // points into `table`
  std::vector<records::Curve> curves;
  analysis::SlopesResult slopes;  // with differences to the baseline
  std::string baseline;           // beside which the others are drawn
  Palette palette;
  bool has_scores = false;  // some cell that takes part has one
};

Section ModelsSection(const Study& study);         // Table 1
Section ScoresSection(const Study& study);         // Table 1, task by task
Section SlopesSection(const Study& study);         // Table 2, Figures 2 and 3
Section FrontiersSection(const Study& study);      // Figure 1
Section DepthAndWidthSection(const Study& study);  // Figures 4 and 5
Section CurvesSection(const Study& study);
Section RanksSection(const Study& study);
Section CrossoversSection(const Study& study);
Section LawsSection(const Study& study);
Section ProvenanceSection(const Study& study);

// The qualities that there are: "upstream", and "downstream" where there are scores.
std::vector<std::string> QualitiesOf(const Study& study);
// An encoding, and a title for people, of a quality that is not transformed.
common::Json QualityAxis(const std::string& quality);
std::string QualityTitle(const std::string& quality);
// "forward FLOPs", "training FLOPs", ... of the request.
std::string FlopsTitle(const Study& study);

std::string Joined(const std::vector<std::string>& parts, const std::string& between);
std::string Format(const char* format, double a, double b = 0, double c = 0);
common::TableValue OrNothing(const std::optional<double>& value);
// With a capital first letter, of text that begins with one of a to z.
std::string Capitalised(std::string text);

}  // namespace allometry::report
