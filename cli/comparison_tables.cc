#include "cli/comparison_tables.h"

#include <algorithm>
#include <cstdio>
#include <string>

#include "cli/output.h"
#include "cli/tables.h"

namespace allometry::cli {
namespace {

using common::ColumnKind;
using common::Table;
using common::TableValue;

std::string NumberText(double value, bool quantity) {
  if (quantity) return common::FormatQuantity(value);
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

// "1.2G to 3.4G", "from 3.4G", "up to 1.2G", "everywhere".
std::string BandText(const v1::CrossoverBand& band, bool quantity) {
  if (!band.has_low() && !band.has_high()) return "everywhere";
  if (!band.has_low()) return "up to " + NumberText(band.high(), quantity);
  if (!band.has_high()) return "from " + NumberText(band.low(), quantity);
  return NumberText(band.low(), quantity) + " to " + NumberText(band.high(), quantity);
}

template <typename List, typename Text>
std::string Joined(const List& list, const Text& text) {
  std::string out;
  for (const auto& entry : list) out += (out.empty() ? "" : ", ") + text(entry);
  return out;
}

TableValue TextOrNone(std::string text) { return text.empty() ? TableValue() : TableValue(std::move(text)); }

Table CrossoversForPeople(const v1::CrossoversResponse& crossovers, bool quantity) {
  Table table;
  table.columns = {{"pair", "", "", ColumnKind::kText},
                   {"verdict", "", "", ColumnKind::kText},
                   {"at", "at", "", ColumnKind::kText},
                   {"band", "not told apart", "", ColumnKind::kText},
                   {"ahead_above", "ahead above", "", ColumnKind::kText}};
  for (const v1::Crossover& c : crossovers.crossovers()) {
    const std::string pair = c.first() + "/" + c.second();
    table.rows.push_back(
        {pair, c.verdict(), TextOrNone(Joined(c.at(), [&](double at) { return NumberText(at, quantity); })),
         TextOrNone(Joined(c.bands(), [&](const v1::CrossoverBand& band) { return BandText(band, quantity); })),
         OrNone(c.ahead_above())});
    if (!c.reason().empty()) table.notes.push_back(pair + ": " + c.reason());
  }
  return table;
}

// A row a band; a pair without any has one row.
Table TidyCrossovers(const v1::CrossoversResponse& crossovers) {
  Table table;
  for (const char* text : {"first", "second", "verdict"}) table.columns.push_back({text, "", "", ColumnKind::kText});
  table.columns.push_back({"curved", "", "", ColumnKind::kBoolean});
  for (const char* number : {"at", "low", "high"}) table.columns.push_back({number, "", "", ColumnKind::kNumber, 4});
  for (const char* text : {"ahead_below", "ahead_above", "reason"})
    table.columns.push_back({text, "", "", ColumnKind::kText});
  for (const v1::Crossover& c : crossovers.crossovers()) {
    for (int i = 0; i < std::max({1, c.bands_size(), c.at_size()}); ++i) {
      const v1::CrossoverBand band = i < c.bands_size() ? c.bands(i) : v1::CrossoverBand();
      table.rows.push_back({c.first(), c.second(), c.verdict(), c.curved(),
                            i < c.at_size() ? TableValue(c.at(i)) : TableValue(),
                            band.has_low() ? TableValue(band.low()) : TableValue(),
                            band.has_high() ? TableValue(band.high()) : TableValue(), OrNone(c.ahead_below()),
                            OrNone(c.ahead_above()), OrNone(c.reason())});
    }
  }
  return table;
}

}  // namespace

Table CrossoversTable(const v1::CrossoversResponse& crossovers, bool quantity, bool tidy) {
  Table table = tidy ? TidyCrossovers(crossovers) : CrossoversForPeople(crossovers, quantity);
  table.name = "crossovers";
  for (std::string& note : LeftOutNotes(crossovers.left_out())) table.notes.push_back(std::move(note));
  return table;
}

Table RanksTable(const v1::RanksResponse& ranks) {
  Table table;
  table.name = "ranks";
  table.columns = {{"size", "", "", ColumnKind::kText},
                   {"rank", "", "", ColumnKind::kInteger},
                   {"architecture", "", "", ColumnKind::kText},
                   {"quality", "", "", ColumnKind::kNumber, 4},
                   {"probability_best", "best", "", ColumnKind::kNumber, 2},
                   {"rank_low", "from", "", ColumnKind::kInteger},
                   {"rank_high", "to", "", ColumnKind::kInteger},
                   {"seeds", "", "", ColumnKind::kInteger},
                   {"at_chance", "at chance", "", ColumnKind::kBoolean}};
  for (const v1::SizeRanking& size : ranks.sizes())
    for (const v1::RankedArchitecture& r : size.ranking())
      table.rows.push_back({size.size(), int64_t{r.rank()}, r.architecture(), r.quality(),
                            r.has_probability_best() ? TableValue(r.probability_best()) : TableValue(),
                            OrNone(int64_t{r.rank_low()}), OrNone(int64_t{r.rank_high()}), int64_t{r.seeds()},
                            r.at_chance()});
  if (!ranks.no_probability().empty()) table.notes.push_back("no probabilities: " + ranks.no_probability());
  for (std::string& note : LeftOutNotes(ranks.left_out())) table.notes.push_back(std::move(note));
  return table;
}

Table AgreementsTable(const v1::RanksResponse& ranks) {
  Table table;
  table.name = "agreements";
  table.columns = {
      {"first", "size", "", ColumnKind::kText},        {"second", "size", "", ColumnKind::kText},
      {"architectures", "", "", ColumnKind::kInteger}, {"tau", "Kendall's tau", "", ColumnKind::kNumber, 2},
      {"low", "", "", ColumnKind::kNumber, 2},         {"high", "", "", ColumnKind::kNumber, 2}};
  for (const v1::RankAgreement& a : ranks.agreements()) {
    table.rows.push_back(
        {a.first(), a.second(), int64_t{a.architectures()}, a.has_tau() ? TableValue(a.tau()) : TableValue(),
         a.has_low() ? TableValue(a.low()) : TableValue(), a.has_high() ? TableValue(a.high()) : TableValue()});
    if (!a.reason().empty()) table.notes.push_back(a.first() + ", " + a.second() + ": " + a.reason());
  }
  return table;
}

}  // namespace allometry::cli
