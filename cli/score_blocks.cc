#include "cli/score_blocks.h"

#include <algorithm>
#include <cstdio>
#include <map>

#include "cli/tables.h"

namespace allometry::cli {
namespace {

using common::ColumnKind;
using common::Table;
using common::TableValue;

constexpr double kShownUnparsed = 0.01;  // smaller shares are left to the other formats
constexpr const char* kGap = "  ";
constexpr const char* kUnparsedTitle = "  unparsed %";

std::string Percent(double fraction) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", 100 * fraction);
  return text;
}

// "81.2*", "81.2 ±0.4"; "-" if there is none.
std::string ValueText(const v1::ScoreValue& score) {
  if (!score.has_value()) return "-";
  std::string text = Percent(score.value());
  if (score.has_spread()) text += " ±" + Percent(score.spread());
  return text;
}

std::string FlagsOf(const v1::ScoreValue& score) {
  return std::string(score.at_chance() ? "*" : "") + (score.selected_on_test() ? "!" : "");
}

bool ShowsUnparsed(const v1::ScoreValue& score) { return score.unparsed() > kShownUnparsed; }

// A line's title: tasks by their names, averages as their benchmarks are written.
std::string TitleOf(const v1::ScoresResponse& scores, int column) {
  static const std::map<std::string, std::string> kAverages = {
      {"glue", "GLUE"}, {"superglue", "SuperGLUE"}, {"squad", "SQuAD"}, {"downstream", "D"}};
  const v1::ScoreColumn& name = scores.columns(column);
  if (!name.average()) return name.name();
  if (const auto found = kAverages.find(name.name()); found != kAverages.end()) return found->second;
  int tasks = 0;
  for (const v1::ScoredRow& row : scores.rows()) tasks = std::max(tasks, row.scores(column).tasks());
  return "mean of " + std::to_string(tasks);
}

// A cell of the study as a column of text.
struct CellColumn {
  std::string architecture, label;
  std::vector<std::string> values;  // one a line
  int width = 0;
};

std::string Padded(const std::string& text, int width, bool left_aligned) {
  const std::string blanks(static_cast<size_t>(std::max(0, width - common::DisplayWidth(text))), ' ');
  return left_aligned ? text + blanks : blanks + text;
}

// Flags stand behind the numbers, which stay aligned.
std::string WithFlags(const std::string& value, const std::string& flags, size_t most_flags) {
  return value + flags + std::string(most_flags - flags.size(), ' ');
}

// The cells as columns, lines as in `lines`: a line for each score, and one for the unparsed answers of those that
// have many.
class Sheet {
 public:
  explicit Sheet(const v1::ScoresResponse& scores) : scores_(scores) {
    for (int c = 0; c < scores.columns_size(); ++c) {
      titles_.push_back(TitleOf(scores, c));
      const bool unparsed =
          std::ranges::any_of(scores.rows(), [c](const auto& r) { return ShowsUnparsed(r.scores(c)); });
      shows_unparsed_.push_back(unparsed);
      if (unparsed) titles_.emplace_back(kUnparsedTitle);
    }
    const bool several_seeds = HasSeveralSeeds();
    for (const v1::ScoredRow& row : scores.rows()) columns_.push_back(ColumnOf(row, several_seeds));
    WidenForArchitectures();
  }

  const std::vector<std::string>& titles() const { return titles_; }
  const std::vector<CellColumn>& columns() const { return columns_; }
  bool shows_unparsed() const { return std::ranges::count(shows_unparsed_, true) > 0; }

  // Where the columns of one block end: with those of an architecture, if these fit a block at all.
  std::vector<size_t> BlockEnds(int width) const {
    std::vector<size_t> ends;
    int used = TitleWidth();
    for (size_t begin = 0, end = 0; begin < columns_.size(); begin = end) {
      end = EndOfArchitecture(begin);
      if (width > 0 && used > TitleWidth() && used + WidthOf(begin, end) > width) StartBlock(begin, &ends, &used);
      for (size_t c = begin; c < end; ++c) {
        if (width > 0 && used > TitleWidth() && used + WidthOf(c, c + 1) > width) StartBlock(c, &ends, &used);
        used += WidthOf(c, c + 1);
      }
    }
    ends.push_back(columns_.size());
    return ends;
  }

  std::string Block(size_t begin, size_t end) const {
    std::string architectures, labels;
    for (size_t c = begin; c < end; ++c) {
      const bool first = c == begin || columns_[c].architecture != columns_[c - 1].architecture;
      // Above its columns' left edge; what is longer than one column reaches over the next ones.
      architectures += Overlapping(first ? columns_[c].architecture : "", architectures, labels);
      labels += kGap + Padded(columns_[c].label, columns_[c].width, false);
    }
    std::string out = Line("", architectures) + Line("", labels);
    for (size_t i = 0; i < titles_.size(); ++i) {
      std::string line;
      for (size_t c = begin; c < end; ++c) line += kGap + Padded(columns_[c].values[i], columns_[c].width, false);
      out += Line(titles_[i], line);
    }
    return out;
  }

 private:
  void StartBlock(size_t column, std::vector<size_t>* ends, int* used) const {
    ends->push_back(column);
    *used = TitleWidth();
  }
  // What to append to the line of architectures so that `name` stands where the next column begins.
  static std::string Overlapping(const std::string& name, const std::string& architectures, const std::string& labels) {
    if (name.empty()) return "";
    const int gap = common::DisplayWidth(labels) - common::DisplayWidth(architectures);
    return std::string(static_cast<size_t>(std::max(0, gap)), ' ') + kGap + name;
  }
  std::string Line(const std::string& title, const std::string& rest) const {
    std::string line = Padded(title, TitleWidth(), true) + rest;
    line.erase(line.find_last_not_of(' ') + 1);
    return line + "\n";
  }
  bool HasSeveralSeeds() const {
    return std::ranges::any_of(scores_.rows(), [this](const v1::ScoredRow& row) {
      return row.has_seed() && row.seed() != scores_.rows(0).seed();
    });
  }
  CellColumn ColumnOf(const v1::ScoredRow& row, bool several_seeds) const {
    CellColumn column{.architecture = row.architecture(), .label = row.size(), .values = {}};
    if (row.has_seed() && several_seeds) column.label += "-s" + std::to_string(row.seed());
    size_t most_flags = 0;
    for (const v1::ScoreValue& score : row.scores()) most_flags = std::max(most_flags, FlagsOf(score).size());
    for (int c = 0; c < row.scores_size(); ++c) {
      const v1::ScoreValue& score = row.scores(c);
      column.values.push_back(WithFlags(ValueText(score), FlagsOf(score), most_flags));
      if (!shows_unparsed_[static_cast<size_t>(c)]) continue;
      column.values.push_back(WithFlags(ShowsUnparsed(score) ? Percent(score.unparsed()) : "", "", most_flags));
    }
    column.width = common::DisplayWidth(column.label);
    for (const std::string& value : column.values) column.width = std::max(column.width, common::DisplayWidth(value));
    return column;
  }
  size_t EndOfArchitecture(size_t begin) const {
    size_t end = begin + 1;
    while (end < columns_.size() && columns_[end].architecture == columns_[begin].architecture) ++end;
    return end;
  }
  // With the gaps before the columns.
  int WidthOf(size_t begin, size_t end) const {
    int width = 0;
    for (size_t c = begin; c < end; ++c) width += 2 + columns_[c].width;
    return width;
  }
  // The last column of an architecture takes what its name needs.
  void WidenForArchitectures() {
    for (size_t begin = 0, end = 0; begin < columns_.size(); begin = end) {
      end = EndOfArchitecture(begin);
      const int needed = 2 + common::DisplayWidth(columns_[begin].architecture) - WidthOf(begin, end);
      columns_[end - 1].width += std::max(0, needed);
    }
  }
  int TitleWidth() const {
    int width = 0;
    for (const std::string& title : titles_) width = std::max(width, common::DisplayWidth(title));
    return width;
  }

  const v1::ScoresResponse& scores_;
  std::vector<std::string> titles_;
  std::vector<bool> shows_unparsed_;  // by column of scores_
  std::vector<CellColumn> columns_;
};

template <typename Predicate>
bool AnyScore(const v1::ScoresResponse& scores, Predicate holds) {
  return std::ranges::any_of(scores.rows(), [&](const auto& row) { return std::ranges::any_of(row.scores(), holds); });
}

// What the signs mean, those that are used.
std::vector<std::string> NotesOf(const v1::ScoresResponse& scores, const Sheet& sheet) {
  std::vector<std::string> notes;
  notes.push_back("100 times the scores; a task with several metrics has their mean");
  if (AnyScore(scores, [](const auto& s) { return s.has_spread(); }))
    notes.push_back("± standard deviation between seeds");
  if (AnyScore(scores, [](const auto& s) { return s.at_chance(); }))
    notes.push_back("* at chance: no better than the most frequent answer; an average, if all of its tasks are");
  if (AnyScore(scores, [](const auto& s) { return s.selected_on_test(); }))
    notes.push_back("! the checkpoint was selected on the examples that are scored");
  if (sheet.shows_unparsed()) notes.push_back("unparsed: answers that are none of the labels, where over 1 %");
  notes.push_back(DownstreamText(scores.downstream()));
  if (!scores.downstream().note().empty()) notes.push_back(scores.downstream().note());
  for (std::string& note : LeftOutNotes(scores.left_out())) notes.push_back(std::move(note));
  return notes;
}

TableValue OrNone(bool known, double value) { return known ? TableValue(value) : TableValue(); }

}  // namespace

std::string ScoreBlocks(const v1::ScoresResponse& scores, int width) {
  const Sheet sheet(scores);
  std::string out;
  size_t begin = 0;
  for (const size_t end : sheet.BlockEnds(width)) {
    out += sheet.Block(begin, end) + "\n";
    begin = end;
  }
  for (const std::string& note : NotesOf(scores, sheet)) out += note + "\n";
  return out;
}

Table ScoresForPeople(const v1::ScoresResponse& scores) {
  const Sheet sheet(scores);
  Table table{.name = "scores", .columns = {{"score", "", "", ColumnKind::kText}}, .rows = {}, .notes = {}};
  for (const CellColumn& column : sheet.columns())
    table.columns.push_back({column.architecture + "-" + column.label, "", "", ColumnKind::kText});
  for (size_t i = 0; i < sheet.titles().size(); ++i) {
    std::vector<TableValue>& row = table.rows.emplace_back();
    row.emplace_back(sheet.titles()[i]);
    for (const CellColumn& column : sheet.columns()) row.emplace_back(column.values[i]);
  }
  table.notes = NotesOf(scores, sheet);
  return table;
}

Table TidyScores(const v1::ScoresResponse& scores) {
  Table table{.name = "scores", .columns = {}, .rows = {}, .notes = LeftOutNotes(scores.left_out())};
  const auto add = [&](ColumnKind kind, std::initializer_list<const char*> names) {
    for (const char* name : names) table.columns.push_back({name, "", "", kind});
  };
  add(ColumnKind::kText, {"cell", "architecture", "size"});
  add(ColumnKind::kInteger, {"seed"});
  add(ColumnKind::kText, {"score"});
  add(ColumnKind::kBoolean, {"average"});
  add(ColumnKind::kNumber, {"value", "spread", "standard_error", "unparsed"});
  add(ColumnKind::kInteger, {"seeds", "examples", "tasks", "tasks_at_chance"});
  add(ColumnKind::kBoolean, {"at_chance", "selected_on_test"});
  add(ColumnKind::kText, {"decoding", "split"});
  for (const v1::ScoredRow& row : scores.rows()) {
    for (int c = 0; c < row.scores_size(); ++c) {
      const v1::ScoreValue& s = row.scores(c);
      if (!s.has_value()) continue;
      const v1::ScoreColumn& column = scores.columns(c);
      table.rows.push_back({row.cell(), row.architecture(), row.size(),
                            row.has_seed() ? TableValue(static_cast<int64_t>(row.seed())) : TableValue(), column.name(),
                            column.average(), s.value(), OrNone(s.has_spread(), s.spread()),
                            OrNone(s.has_standard_error(), s.standard_error()), OrNone(s.has_unparsed(), s.unparsed()),
                            int64_t{s.seeds()}, int64_t{s.examples()}, int64_t{s.tasks()}, int64_t{s.tasks_at_chance()},
                            s.at_chance(), s.selected_on_test(), s.decoding(), s.split()});
    }
  }
  return table;
}

}  // namespace allometry::cli
