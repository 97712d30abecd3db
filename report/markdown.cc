#include "report/markdown.h"

namespace allometry::report {
namespace {

// What Markdown or HTML inside of it would take for its own.
std::string Plain(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '&')
      out += "&amp;";
    else if (std::string_view("\\`*_[]#").find(c) != std::string_view::npos)
      out += std::string("\\") + c;
    else
      out += c == '\n' ? ' ' : c;
  }
  return out;
}

std::string TableMarkdown(const TitledTable& titled) {
  common::Table table = titled.table;
  for (common::Column& column : table.columns) column.title = Plain(column.title.empty() ? column.name : column.title);
  for (auto& row : table.rows)
    for (common::TableValue& value : row)
      if (auto* text = std::get_if<std::string>(&value)) *text = Plain(*text);
  for (std::string& note : table.notes) note = Plain(note);
  return "**" + Plain(titled.title) + "**\n\n" + common::Render(table, common::OutputFormat::kMarkdown) + "\n";
}

std::string FigureMarkdown(const Figure& figure, const std::string& figures) {
  const std::string picture =
      figures.empty() ? "" : "![" + Plain(figure.title) + "](" + figures + "/" + figure.name + ".png)\n\n";
  return picture + "**" + Plain(figure.title) + ".** " + Plain(figure.caption) + "\n\n";
}

}  // namespace

std::string ToMarkdown(const Report& report, const std::string& figures) {
  std::string out = "# " + Plain(report.title) + "\n\n" + Plain(report.summary) + "\n\n";
  for (const Section& section : report.sections) {
    out += "## " + Plain(section.title) + "\n\n";
    for (const std::string& sentence : section.text) out += Plain(sentence) + "\n\n";
    for (const Figure& figure : section.figures) out += FigureMarkdown(figure, figures);
    for (const TitledTable& table : section.tables) out += TableMarkdown(table);
  }
  return out;
}

}  // namespace allometry::report
