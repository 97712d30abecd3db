#include "report/html.h"

#include <algorithm>

#include "report/assets.h"

namespace allometry::report {
namespace {

using common::ColumnKind;
using common::Json;

constexpr size_t kLongText = 60;  // characters, from which on a cell of a table may wrap

// Of text between tags and of attributes in double quotes.
std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

// JSON inside of a script element, which nothing in it can end.
std::string ScriptJson(const Json& json) {
  std::string out;
  for (const char c : json.dump(-1, ' ', false, Json::error_handler_t::replace))
    if (c == '<')
      out += "\\u003c";
    else
      out += c;
  return out;
}

std::string Element(const std::string& tag, const std::string& attributes, const std::string& content) {
  return "<" + tag + (attributes.empty() ? "" : " " + attributes) + ">" + content + "</" + tag + ">";
}

void ReplaceAll(const std::string& from, const std::string& to, std::string* text) {
  for (size_t at = 0; (at = text->find(from, at)) != std::string::npos; at += to.size())
    text->replace(at, from.size(), to);
}

// Drawings come from several documents, and their ids must differ in one page. They are named in id="…", url(#…) and
// href="#…".
std::string WithOwnIds(std::string svg, const std::string& name) {
  ReplaceAll("id=\"", "id=\"" + name + "-", &svg);
  ReplaceAll("url(#", "url(#" + name + "-", &svg);
  ReplaceAll("url(&quot;#", "url(&quot;#" + name + "-", &svg);
  ReplaceAll("href=\"#", "href=\"#" + name + "-", &svg);
  return svg;
}

std::string FigureHtml(const Figure& figure, const Drawings& drawings) {
  const std::string picture = Element("div", "class=\"picture\" id=\"picture-" + figure.name + "\"",
                                      WithOwnIds(drawings.svg.at(figure.name), figure.name));
  const std::string caption =
      Element("figcaption", "", Element("b", "", Escaped(figure.title)) + ". " + Escaped(figure.caption));
  return Element("figure", "id=\"" + figure.name + "\"", "\n" + picture + "\n" + caption + "\n") + "\n";
}

std::string CellHtml(const char* tag, const common::Column& column, const std::string& text) {
  const char* attributes = column.kind != ColumnKind::kText && column.kind != ColumnKind::kBoolean ? "class=\"number\""
                           : text.size() > kLongText                                               ? "class=\"long\""
                                                                                                   : "";
  return Element(tag, attributes, Escaped(text));
}

std::string TableHtml(const TitledTable& titled) {
  const common::Table& table = titled.table;
  std::string head, body;
  for (const common::Column& column : table.columns)
    head += CellHtml("th", column, column.title.empty() ? column.name : column.title);
  for (const std::vector<std::string>& row : common::ShownRows(table)) {
    std::string cells;
    for (size_t c = 0; c < row.size(); ++c) cells += CellHtml("td", table.columns[c], row[c]);
    body += Element("tr", "", cells) + "\n";
  }
  std::string notes;
  for (const std::string& note : table.notes) notes += Element("li", "", Escaped(note)) + "\n";
  return Element("div", "class=\"table\" id=\"table-" + table.name + "\"",
                 "\n" + Element("div", "class=\"caption\"", Escaped(titled.title)) + "\n" +
                     Element("div", "class=\"scroll\"",
                             Element("table", "",
                                     Element("thead", "", Element("tr", "", head)) + "\n" +
                                         Element("tbody", "", "\n" + body))) +
                     "\n" + (notes.empty() ? "" : Element("ul", "class=\"notes\"", "\n" + notes) + "\n")) +
         "\n";
}

std::string SectionHtml(const Section& section, const Drawings& drawings) {
  std::string out = Element("h2", "", Escaped(section.title)) + "\n";
  for (const std::string& sentence : section.text) out += Element("p", "", Escaped(sentence)) + "\n";
  for (const Figure& figure : section.figures) out += FigureHtml(figure, drawings);
  for (const TitledTable& table : section.tables) out += TableHtml(table);
  return Element("section", "id=\"section-" + section.name + "\"", "\n" + out) + "\n";
}

std::string NavigationHtml(const Report& report) {
  std::string links;
  for (const Section& section : report.sections)
    links += Element("a", "href=\"#section-" + section.name + "\"", Escaped(section.title)) + "\n";
  return Element("nav", "", "\n" + links) + "\n";
}

std::string FiguresJson(const Report& report) {
  Json figures = Json::array();
  for (const Section& section : report.sections)
    for (const Figure& figure : section.figures)
      figures.push_back({{"name", figure.name}, {"specification", Specification(figure)}});
  return ScriptJson(figures);
}

std::string HeadHtml(const Report& report) {
  return "<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
         "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
         "script-src 'unsafe-inline' 'unsafe-eval'; img-src data: blob:\">\n" +
         Element("title", "", Escaped(report.title)) + "\n" + Element("style", "", "\n" + std::string(kPageStyle)) +
         "\n";
}

}  // namespace

std::string ToHtml(const Report& report, const Drawings& drawings) {
  std::string body = Element("h1", "", Escaped(report.title)) + "\n" +
                     Element("p", "class=\"quiet\"", Escaped(report.summary)) + "\n" + NavigationHtml(report);
  for (const Section& section : report.sections) body += SectionHtml(section, drawings);
  std::string javascript = drawings.javascript;
  ReplaceAll("</script", "<\\/script", &javascript);
  body += Element("script", "type=\"application/json\" id=\"figures\"", FiguresJson(report)) + "\n" +
          Element("script", "", javascript) + "\n" + Element("script", "", "\n" + std::string(kPageScript)) + "\n";
  return "<!DOCTYPE html>\n<html lang=\"en\">\n" + Element("head", "", "\n" + HeadHtml(report)) + "\n" +
         Element("body", "", "\n" + body) + "\n</html>\n";
}

}  // namespace allometry::report
