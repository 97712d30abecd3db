#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/table.h"

// What the views of all figures have in common.
namespace allometry::report {

// How architectures look: a colour that colour-blind readers can tell from the others (Okabe and Ito 2008), and a shape
// or dash besides, so that more architectures than colours, and prints without colours, stay distinct. The baseline is
// black. Pairs repeat after 56 architectures.
class Palette {
 public:
  Palette(const std::vector<std::string>& architectures, const std::string& baseline);

  // Encodings of the column `architecture`.
  common::Json Color() const { return Encoding(colors_); }
  common::Json Shape() const { return Encoding(shapes_); }
  common::Json Dash() const { return Encoding(dashes_); }
  const std::vector<std::string>& names() const { return names_; }

 private:
  common::Json Encoding(const std::vector<common::Json>& range) const;

  std::vector<std::string> names_;  // the baseline first
  std::vector<common::Json> colors_, shapes_, dashes_;
};

// A quantitative encoding that need not begin at zero.
common::Json LinearAxis(const std::string& field, const std::string& title);
// The share of its range by which a logarithmic axis is wider on either side.
inline constexpr double kLogMargin = 0.1;

// A logarithmic one, a little wider than the values, which are positive; ticks at powers of ten, as 1M, 10M, and at 2
// and 5 times them where these are few.
common::Json LogAxis(const std::string& field, const std::string& title, std::span<const double> values);
// The same axis, with room around values that are all equal.
common::Json WithRoom(common::Json axis, std::span<const double> values);
// An axis of percents for fractions.
common::Json PercentAxis(const std::string& field, const std::string& title);

// The colour of architectures, filled or, where the row's `at_chance` holds, hollow; one legend with the shape.
common::Json FilledUnlessAtChance(const Palette& palette);

// An encoding without axis or legend.
common::Json Nominal(const std::string& field);

inline constexpr int kPlotWidth = 520, kPlotHeight = 360;  // pixels, of a figure of one plot
inline constexpr size_t kMostPanels = 24;

// Small multiples: how many abreast, and the pixels of each.
struct PanelLayout {
  int columns, width, height;
};
inline constexpr PanelLayout kTwoAbreast = {2, 230, 170}, kThreeAbreast = {3, 178, 140};

// A panel for each value of a column, in this order; rows with other values are not drawn.
common::Json Panels(const std::string& column, const std::vector<std::string>& values, const PanelLayout& layout,
                    common::Json panel);

// Shows these columns of a row when it is pointed at.
common::Json Tooltip(const common::Table& data, const std::vector<std::string>& columns);

// A transform that keeps the rows whose column has this value, or (`not`) has not.
common::Json Keep(const std::string& field, const common::Json& value);
common::Json Drop(const std::string& field, const common::Json& value);

// The values of a column that are numbers.
std::vector<double> NumbersOf(const common::Table& data, const std::string& column);

}  // namespace allometry::report
