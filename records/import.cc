#include "records/import.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <functional>
#include <optional>
#include <set>
#include <tuple>

#include "common/ids.h"
#include "common/json.h"
#include "common/table.h"
#include "records/csv_text.h"

namespace allometry::records {
namespace {

constexpr const char* kDefaultSweep = "imported";
constexpr std::array<const char*, 8> kTextFields = {"sweep", "cell", "architecture", "size",
                                                    "shape", "seed", "state",        "device"};
constexpr std::array<const char*, 17> kMetrics = {"validation_loss",
                                                  "training_flops",
                                                  "forward_flops",
                                                  "forward_flops_without_head",
                                                  "mtf_multiply_adds",
                                                  "six_nd",
                                                  "parameters",
                                                  "tokens",
                                                  "non_embedding_parameters",
                                                  "active_parameters",
                                                  "device_seconds",
                                                  "steps",
                                                  "peak_memory_bytes",
                                                  "tokens_per_second",
                                                  "text_loss",
                                                  "unigram_loss",
                                                  "bits_per_byte"};
constexpr std::array<std::pair<const char*, const char*>, 8> kShortNames = {{{"params", "parameters"},
                                                                             {"n", "parameters"},
                                                                             {"N", "parameters"},
                                                                             {"d", "tokens"},
                                                                             {"D", "tokens"},
                                                                             {"loss", "validation_loss"},
                                                                             {"flops", "training_flops"},
                                                                             {"model", "architecture"}}};
constexpr std::array<const char*, 5> kScoreParts = {".value", ".standard_error", ".majority", ".examples",
                                                    ".at_chance"};
constexpr std::array<const char*, 6> kMissing = {"", "na", "n/a", "null", "none", "nan"};

std::string Lower(std::string_view text) {
  std::string out;
  for (char c : text) out += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return out;
}

std::string Trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(" \t") - first + 1));
}

bool IsTextField(const std::string& field) { return std::ranges::count(kTextFields, field) > 0; }
bool IsMetric(const std::string& field) { return std::ranges::count(kMetrics, field) > 0; }

// "gloss.value" is the task gloss and the part ".value".
std::optional<std::pair<std::string, std::string>> TaskAndPart(const std::string& field) {
  for (const std::string part : kScoreParts) {
    if (field.size() > part.size() && field.ends_with(part))
      return std::pair(field.substr(0, field.size() - part.size()), part);
  }
  return std::nullopt;
}

bool HasPrefix(const std::string& field, std::string_view prefix) {
  return field.starts_with(prefix) && field.size() > prefix.size();
}

bool IsField(const std::string& field) {
  return IsTextField(field) || IsMetric(field) || HasPrefix(field, "tag.") || HasPrefix(field, "metric.") ||
         TaskAndPart(field);
}

// The field that a name in a mapping means, or the name itself.
std::string FieldOf(const std::string& name) {
  for (const auto& [short_name, field] : kShortNames) {
    if (name == short_name) return field;
  }
  return HasPrefix(name, "score.") ? name.substr(6) + ".value" : name;
}

common::Error UnknownField(const std::string& name) {
  std::vector<std::string> known(kTextFields.begin(), kTextFields.end());
  known.insert(known.end(), kMetrics.begin(), kMetrics.end());
  for (const auto& [short_name, field] : kShortNames) known.emplace_back(short_name);
  const std::string near = common::NearestName(name, known);
  return common::InvalidArgument(
      "mapping: unknown field '" + name + "'" + (near.empty() ? "" : " (did you mean '" + near + "'?)") +
      ": name architecture, size, shape, seed, params, tokens, loss, flops, a metric, score.<task>, metric.<name> or "
      "tag.<name>");
}

// Parts between commas that are not in quotes.
common::Result<std::vector<std::string>> PartsOfMapping(std::string_view text) {
  std::vector<std::string> parts(1);
  bool quoted = false;
  for (char c : text) {
    if (c == '"') quoted = !quoted;
    if (c == ',' && !quoted) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  if (quoted) return common::InvalidArgument("mapping: a quote is not closed in '" + std::string(text) + "'");
  return parts;
}

std::string WithoutQuotes(std::string text) {
  const bool quoted = text.size() >= 2 && text.front() == '"' && text.back() == '"';
  return quoted ? text.substr(1, text.size() - 2) : text;
}

// A row by its columns' names; a column that it lacks is a missing value.
struct ImportedRow {
  int line = 0;
  std::map<std::string, std::string> values;
};

struct ImportedRows {
  std::vector<std::string> columns;  // in the order of the file
  std::vector<ImportedRow> rows;
};

bool IsMissing(const std::string& value) { return std::ranges::count(kMissing, Lower(Trimmed(value))) > 0; }

std::optional<double> ParseNumber(const std::string& text) {
  const std::string value = Lower(Trimmed(text));
  if (value == "true") return 1;
  if (value == "false") return 0;
  const char* begin = value.data() + (value.starts_with('+') ? 1 : 0);
  double number = 0;
  const auto [end, error] = std::from_chars(begin, value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size()) return std::nullopt;
  return number;
}

// Exact where a seed is an integer, so that the largest ones keep their digits; "3.0" is 3, as other programs write.
std::optional<uint64_t> ParseSeed(const std::string& text) {
  const std::string value = Trimmed(text);
  uint64_t seed = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), seed);
  if (error == std::errc() && end == value.data() + value.size()) return seed;
  const std::optional<double> number = ParseNumber(value);
  if (!number || *number < 0 || *number > 9e15 || *number != std::floor(*number)) return std::nullopt;
  return static_cast<uint64_t>(*number);
}

// Builds the records of one file.
class Importer {
 public:
  Importer(const ImportedRows& rows, const ColumnMapping& mapping, const std::string& where)
      : rows_(rows), mapping_(mapping), where_(where) {}

  common::Result<Import> Run() {
    if (rows_.rows.empty()) return common::InvalidArgument(where_ + ": there are no rows below the header");
    ALLO_RETURN_IF_ERROR(ChooseColumns());
    for (const ImportedRow& row : rows_.rows) {
      ALLO_ASSIGN_OR_RETURN(Record record, ReadRow(row));
      out_.table.push_back(std::move(record));
    }
    NameSizes();
    ALLO_RETURN_IF_ERROR(NumberSeeds());
    NameCells();
    AddNotes();
    return std::move(out_);
  }

 private:
  bool Has(const std::string& field) const { return columns_.contains(field) || mapping_.constants.contains(field); }

  common::Status ChooseColumns() {
    columns_ = mapping_.columns;
    std::set<std::string> used;
    for (const auto& [field, column] : columns_) {
      if (std::ranges::count(rows_.columns, column) == 0) return NoColumn(field, column);
      used.insert(column);
    }
    for (const std::string& column : rows_.columns) {
      if (used.contains(column)) continue;
      const bool is_field = IsField(column) && !Has(column);
      if (is_field) columns_[column] = column;
      if (!is_field) out_.unused_columns.push_back(column);
      used.insert(column);
    }
    for (const std::string& column : used) {
      const bool is_used = std::ranges::count(out_.unused_columns, column) == 0;
      if (is_used && std::ranges::count(rows_.columns, column) > 1)
        return common::InvalidArgument(where_ + ": two columns are named '" + column + "': rename one");
    }
    if (!Has("architecture"))
      return common::InvalidArgument(where_ +
                                     ": nothing says the architecture: map a column (architecture=COLUMN) or " +
                                     "name one for all rows (architecture:=NAME)");
    return common::Ok();
  }

  common::Error NoColumn(const std::string& field, const std::string& column) const {
    const std::string near = common::NearestName(column, rows_.columns);
    std::string all;
    for (size_t i = 0; i < rows_.columns.size() && i < 12; ++i) all += (i ? ", " : "") + rows_.columns[i];
    return common::InvalidArgument(where_ + ": there is no column '" + column + "' for " + field +
                                   (near.empty() ? "" : " (did you mean '" + near + "'?)") + "; it has " + all +
                                   (rows_.columns.size() > 12 ? ", ..." : ""));
  }

  common::Error Wrong(const ImportedRow& row, const std::string& field, const std::string& what) const {
    const auto column = columns_.find(field);
    return common::InvalidArgument(where_ + ":" + std::to_string(row.line) +
                                   (column == columns_.end() ? "" : ": column '" + column->second + "'") + ": " + what);
  }

  // The text of a field in a row; absent when missing, which is counted.
  std::optional<std::string> Text(const ImportedRow& row, const std::string& field) {
    if (const auto constant = mapping_.constants.find(field); constant != mapping_.constants.end())
      return constant->second;
    const auto column = columns_.find(field);
    if (column == columns_.end()) return std::nullopt;
    const auto value = row.values.find(column->second);
    if (value != row.values.end() && !IsMissing(value->second)) return Trimmed(value->second);
    auto& [count, first_line] = missing_.try_emplace(column->second, 0, row.line).first->second;
    ++count;
    return std::nullopt;
  }

  common::Result<std::optional<double>> Number(const ImportedRow& row, const std::string& field) {
    const std::optional<std::string> text = Text(row, field);
    if (!text) return std::optional<double>();
    const std::optional<double> number = ParseNumber(*text);
    if (!number)
      return Wrong(row, field, "'" + *text + "' is not a number: correct it, or leave it empty if it is not known");
    return number;
  }

  common::Status ReadTextFields(const ImportedRow& row, Record* record) {
    record->sweep = Text(row, "sweep").value_or(kDefaultSweep);
    record->cell = Text(row, "cell").value_or("");
    record->size = Text(row, "size").value_or("");
    record->shape = Text(row, "shape").value_or("");
    record->device = Text(row, "device").value_or("");
    const std::optional<std::string> architecture = Text(row, "architecture");
    if (!architecture) return Wrong(row, "architecture", "a run without an architecture: name it, or drop the row");
    record->architecture = *architecture;
    record->state = CellState::kDone;
    if (const auto state = Text(row, "state")) {
      const auto parsed = ParseCellState(*state);
      if (!parsed) return Wrong(row, "state", parsed.error().message);
      record->state = *parsed;
    }
    if (const auto seed = Text(row, "seed")) {
      const std::optional<uint64_t> number = ParseSeed(*seed);
      if (!number) return Wrong(row, "seed", "'" + *seed + "' is not a seed, a whole number from 0 on");
      record->seed = *number;
    }
    return common::Ok();
  }

  std::vector<std::string> FieldsOfFile() const {
    std::vector<std::string> fields;
    for (const auto& [field, column] : columns_) fields.push_back(field);
    for (const auto& [field, text] : mapping_.constants) fields.push_back(field);
    return fields;
  }

  common::Result<Record> ReadRow(const ImportedRow& row) {
    Record record;
    ALLO_RETURN_IF_ERROR(ReadTextFields(row, &record));
    std::map<std::string, std::map<std::string, double>> scores;  // by task and part
    for (const std::string& field : FieldsOfFile()) {
      if (IsTextField(field)) continue;
      if (HasPrefix(field, "tag.")) {
        if (const auto text = Text(row, field)) record.tags[field.substr(4)] = *text;
        continue;
      }
      ALLO_ASSIGN_OR_RETURN(const std::optional<double> number, Number(row, field));
      if (!number) continue;
      if (const auto task = TaskAndPart(field); task && !IsMetric(field)) {
        scores[task->first][task->second] = *number;
      } else {
        record.metrics[HasPrefix(field, "metric.") ? field.substr(7) : field] = *number;
      }
    }
    AddScores(scores, &record);
    AddTokens(&record);
    AddSixNd(&record);
    return record;
  }

  static void AddScores(const std::map<std::string, std::map<std::string, double>>& scores, Record* record) {
    for (const auto& [task, parts] : scores) {
      if (!parts.contains(".value")) continue;
      Score& score = record->scores[task];
      score.value = parts.at(".value");
      if (parts.contains(".standard_error")) score.standard_error = parts.at(".standard_error");
      if (parts.contains(".majority")) score.majority = parts.at(".majority");
      if (parts.contains(".examples")) score.examples = static_cast<int64_t>(parts.at(".examples"));
      score.at_chance = parts.contains(".at_chance") && parts.at(".at_chance") != 0;
      record->finetune_state = CellState::kDone;
    }
  }

  void AddSixNd(Record* record) {
    const auto n = record->metrics.find("non_embedding_parameters"), d = record->metrics.find("tokens");
    if (n == record->metrics.end() || d == record->metrics.end() || record->metrics.contains("six_nd")) return;
    record->metrics["six_nd"] = 6 * n->second * d->second;
    computed_six_nd_ = true;
  }

  // FLOPs that were said to be 6 N D tell D.
  void AddTokens(Record* record) {
    const std::optional<double> flops = MetricOf(*record, "six_nd"), total = MetricOf(*record, "parameters"),
                                non_embedding = MetricOf(*record, "non_embedding_parameters");
    const std::optional<double> n = non_embedding ? non_embedding : total;
    if (!flops || !n || !(*n > 0) || record->metrics.contains("tokens")) return;
    record->metrics["tokens"] = *flops / (6 * *n);
    computed_tokens_ = true;
  }

  static std::optional<double> MetricOf(const Record& record, const char* name) {
    const auto found = record.metrics.find(name);
    return found == record.metrics.end() ? std::nullopt : std::optional(found->second);
  }

  // Three digits, or all of them where that would make two values one.
  class ShortNames {
   public:
    void Add(const std::optional<double>& value) {
      if (value) values_[common::FormatQuantity(*value)].insert(*value);
    }
    std::string Of(double value) const {
      const std::string name = common::FormatQuantity(value);
      return values_.at(name).size() > 1 ? common::ShortestDouble(value) : name;
    }

   private:
    std::map<std::string, std::set<double>> values_;
  };

  // Without a size it is N; the same model trained longer is told apart by its tokens, or by its FLOPs.
  void NameSizes() {
    if (Has("size")) return;
    ShortNames sizes, tokens, flops;
    for (const Record& record : out_.table) {
      sizes.Add(MetricOf(record, "parameters"));
      tokens.Add(MetricOf(record, "tokens"));
      flops.Add(MetricOf(record, "training_flops"));
    }
    for (Record& record : out_.table) {
      if (const auto n = MetricOf(record, "parameters")) record.size = sizes.Of(*n);
      if (Has("shape")) continue;
      if (const auto d = MetricOf(record, "tokens"))
        record.shape = tokens.Of(*d) + " tokens";
      else if (const auto c = MetricOf(record, "training_flops"))
        record.shape = flops.Of(*c) + " FLOPs";
    }
    out_.notes.push_back(
        "no column says the size: it is the number of parameters, with the tokens (or training FLOPs) where they are "
        "known");
  }

  using CellKey = std::tuple<std::string, std::string, std::string>;  // architecture, size, shape
  static CellKey KeyOf(const Record& r) { return {r.architecture, r.size, r.shape}; }

  static std::string Described(const Record& r) {
    return r.architecture + (r.size.empty() ? "" : ", " + r.size) + (r.shape.empty() ? "" : ", " + r.shape);
  }

  common::Status NumberSeeds() {
    const bool has_seeds = Has("seed");
    std::map<CellKey, std::vector<size_t>> rows_of;
    std::map<std::pair<CellKey, uint64_t>, size_t> first;
    bool replicates = false;
    for (size_t i = 0; i < out_.table.size(); ++i) {
      Record& record = out_.table[i];
      std::vector<size_t>& earlier = rows_of[KeyOf(record)];
      for (size_t other : earlier) {
        if (rows_.rows[other].values == rows_.rows[i].values)
          return Wrong(rows_.rows[i], "", "equal in every field to line " + Line(other) + ": drop one of them");
      }
      if (!has_seeds) record.seed = earlier.size() + 1;
      replicates |= !earlier.empty();
      const auto [found, is_new] = first.try_emplace({KeyOf(record), record.seed}, i);
      if (!is_new)
        return Wrong(rows_.rows[i], "",
                     "repeats the cell of line " + Line(found->second) + " (" + Described(record) + ", seed " +
                         std::to_string(record.seed) + "): drop one, or map what tells them apart as seed or shape");
      earlier.push_back(i);
    }
    if (!has_seeds)
      out_.notes.push_back(replicates
                               ? "no column says the seed: rows of one architecture, size and shape count as its seeds"
                               : "no column says the seed, and no two rows are of one cell: there are no replicates");
    return common::Ok();
  }

  std::string Line(size_t row) const { return std::to_string(rows_.rows[row].line); }

  void NameCells() {
    for (Record& r : out_.table) {
      if (!r.cell.empty()) continue;
      const std::string shape = r.shape.empty() ? "" : "-" + r.shape;
      r.cell = r.architecture + (r.size.empty() ? "" : "-" + r.size) + shape + "-s" + std::to_string(r.seed);
      std::ranges::replace(r.cell, ' ', '-');
    }
  }

  void AddNotes() {
    for (const auto& [column, missing] : missing_)
      out_.notes.push_back("column '" + column + "': " + std::to_string(missing.first) + " of " +
                           std::to_string(out_.table.size()) + " values are missing, the first at line " +
                           std::to_string(missing.second));
    if (computed_six_nd_) out_.notes.push_back("six_nd was computed from non_embedding_parameters and tokens");
    if (computed_tokens_)
      out_.notes.push_back(
          "tokens were computed as six_nd / (6 N), N the non-embedding parameters, or all without them");
    if (!Has("validation_loss")) out_.notes.push_back("no column says the loss: map it (loss=COLUMN) to have U");
  }

  const ImportedRows& rows_;
  const ColumnMapping& mapping_;
  const std::string& where_;
  std::map<std::string, std::string> columns_;          // by field
  std::map<std::string, std::pair<int, int>> missing_;  // by column: how many, first line
  bool computed_six_nd_ = false, computed_tokens_ = false;
  Import out_;
};

// A JSON value as the text of a field; absent for lists.
std::optional<std::string> TextOfJson(const common::Json& value) {
  if (value.is_null()) return "";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_array() || value.is_object()) return std::nullopt;
  return value.dump();
}

void Flatten(const common::Json& object, const std::string& prefix, ImportedRow* row, ImportedRows* out,
             std::set<std::string>* seen) {
  for (const auto& [name, value] : object.items()) {
    const std::string column = prefix + name;
    if (value.is_object()) {
      Flatten(value, column + ".", row, out, seen);
    } else if (const auto text = TextOfJson(value)) {
      row->values[column] = *text;
      if (seen->insert(column).second) out->columns.push_back(column);
    }
  }
}

}  // namespace

common::Result<ColumnMapping> ParseColumnMapping(std::string_view text) {
  ColumnMapping mapping;
  if (Trimmed(text).empty()) return mapping;
  ALLO_ASSIGN_OR_RETURN(const std::vector<std::string> parts, PartsOfMapping(text));
  for (const std::string& part : parts) {
    const size_t equals = part.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == part.size())
      return common::InvalidArgument("mapping: '" + part + "' is not of the form field=column or field:=text");
    const bool constant = part[equals - 1] == ':';
    const std::string name = Trimmed(part.substr(0, equals - (constant ? 1 : 0)));
    const std::string field = FieldOf(name);
    if (!IsField(field)) return UnknownField(name);
    if (mapping.columns.contains(field) || mapping.constants.contains(field))
      return common::InvalidArgument("mapping: " + field + " is given twice");
    (constant ? mapping.constants : mapping.columns)[field] = WithoutQuotes(Trimmed(part.substr(equals + 1)));
  }
  return mapping;
}

common::Result<Import> ImportCsv(std::string_view text, const ColumnMapping& mapping, const std::string& where) {
  ALLO_ASSIGN_OR_RETURN(const std::vector<CsvLine> lines, ParseCsv(text, where));
  if (lines.empty()) return common::InvalidArgument(where + ": the file is empty: it needs a header and rows");
  ImportedRows rows;
  for (const std::string& name : lines.front().fields) rows.columns.push_back(Trimmed(name));
  for (size_t i = 1; i < lines.size(); ++i) {
    if (lines[i].fields.size() != rows.columns.size())
      return common::InvalidArgument(where + ":" + std::to_string(lines[i].number) + ": " +
                                     std::to_string(lines[i].fields.size()) + " fields, and the header has " +
                                     std::to_string(rows.columns.size()) + ": is a comma missing, or not in quotes?");
    ImportedRow row{lines[i].number, {}};
    for (size_t c = 0; c < rows.columns.size(); ++c) row.values[rows.columns[c]] = lines[i].fields[c];
    rows.rows.push_back(std::move(row));
  }
  return Importer(rows, mapping, where).Run();
}

common::Result<Import> ImportJsonLines(std::string_view text, const ColumnMapping& mapping, const std::string& where) {
  ImportedRows rows;
  std::set<std::string> seen;
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string place = where + ":" + std::to_string(number);
    ALLO_ASSIGN_OR_RETURN(const common::Json json, common::ParseJson(line, place));
    if (!json.is_object()) return common::InvalidArgument(place + ": a row is a JSON object");
    ImportedRow row{number, {}};
    Flatten(json, "", &row, &rows, &seen);
    rows.rows.push_back(std::move(row));
  }
  return Importer(rows, mapping, where).Run();
}

}  // namespace allometry::records
