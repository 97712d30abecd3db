#include "report/latex.h"

#include <array>

namespace allometry::report {
namespace {

using common::ColumnKind;

constexpr size_t kRowsOfAPage = 40;  // longer tables go over pages

// What has a meaning in LaTeX, and what its fonts have in mathematics only.
constexpr std::array<std::pair<std::string_view, std::string_view>, 22> kSymbols = {{{"\\", "\\textbackslash{}"},
                                                                                     {"&", "\\&"},
                                                                                     {"%", "\\%"},
                                                                                     {"$", "\\$"},
                                                                                     {"#", "\\#"},
                                                                                     {"_", "\\_"},
                                                                                     {"{", "\\{"},
                                                                                     {"}", "\\}"},
                                                                                     {"~", "\\textasciitilde{}"},
                                                                                     {"^", "\\textasciicircum{}"},
                                                                                     {"<", "\\textless{}"},
                                                                                     {">", "\\textgreater{}"},
                                                                                     {"|", "\\textbar{}"},
                                                                                     {"\n", " "},
                                                                                     {"±", "$\\pm$"},
                                                                                     {"α", "$\\alpha$"},
                                                                                     {"β", "$\\beta$"},
                                                                                     {"τ", "$\\tau$"},
                                                                                     {"−", "$-$"},
                                                                                     {"×", "$\\times$"},
                                                                                     {"≤", "$\\leq$"},
                                                                                     {"≥", "$\\geq$"}}};

std::string LatexText(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    std::string_view from = text.substr(0, 1), to = from;
    for (const auto& [symbol, command] : kSymbols)
      if (text.starts_with(symbol)) {
        from = symbol;
        to = command;
        break;
      }
    out += to;
    text.remove_prefix(from.size());
  }
  return out;
}

std::string LatexRow(const std::vector<std::string>& values) {
  std::string line;
  for (const std::string& value : values) line += (line.empty() ? "" : " & ") + LatexText(value);
  return line + " \\\\\n";
}

std::string LatexHead(const common::Table& table) {
  std::vector<std::string> titles;
  for (const common::Column& column : table.columns)
    titles.push_back(column.title.empty() ? column.name : column.title);
  return "\\toprule\n" + LatexRow(titles) + "\\midrule\n";
}

std::string Alignment(const common::Table& table) {
  std::string alignment;
  for (const common::Column& column : table.columns)
    alignment += column.kind == ColumnKind::kText || column.kind == ColumnKind::kBoolean ? 'l' : 'r';
  return alignment;
}

std::string CaptionLatex(const TitledTable& titled) {
  return "\\caption{" + LatexText(titled.title) + "}\\label{tab:" + titled.table.name + "}";
}

std::string NotesLatex(const common::Table& table) {
  std::string out;
  for (const std::string& note : table.notes) out += "\\par\\footnotesize " + LatexText(note) + "\n";
  return out;
}

std::string LongTable(const TitledTable& titled, const std::string& rows) {
  const common::Table& table = titled.table;
  const std::string head = LatexHead(table);
  return "{\\footnotesize\n\\begin{longtable}{" + Alignment(table) + "}\n" + CaptionLatex(titled) + "\\\\\n" + head +
         "\\endfirsthead\n" + head + "\\endhead\n" + rows + "\\bottomrule\n\\end{longtable}\n" + NotesLatex(table) +
         "}\n\n";
}

// One that would be wider than the text shrinks to it.
std::string ShortTable(const TitledTable& titled, const std::string& rows) {
  const common::Table& table = titled.table;
  return "\\begin{table}[htbp]\n\\centering\n" + CaptionLatex(titled) +
         "\n\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n\\begin{tabular}{" +
         Alignment(table) + "}\n" + LatexHead(table) + rows + "\\bottomrule\n\\end{tabular}}\n" + NotesLatex(table) +
         "\\end{table}\n\n";
}

std::string TableLatex(const TitledTable& titled) {
  std::string rows;
  for (const std::vector<std::string>& row : common::ShownRows(titled.table)) rows += LatexRow(row);
  return titled.table.rows.size() > kRowsOfAPage ? LongTable(titled, rows) : ShortTable(titled, rows);
}

std::string FigureLatex(const Figure& figure, const std::string& figures) {
  return "\\begin{figure}[htbp]\n\\centering\n\\includegraphics[width=\\linewidth]{" + figures + "/" + figure.name +
         ".png}\n\\caption{" + LatexText(figure.title + ". " + figure.caption) + "}\\label{fig:" + figure.name +
         "}\n\\end{figure}\n\n";
}

}  // namespace

std::string ToLatex(const Report& report, const std::string& figures) {
  std::string out = "% " + LatexText(report.title) + ": needs \\usepackage{booktabs,longtable,graphicx}.\n\n" +
                    LatexText(report.summary) + "\n\n";
  for (const Section& section : report.sections) {
    out += "\\section*{" + LatexText(section.title) + "}\n";
    for (const std::string& sentence : section.text) out += LatexText(sentence) + "\n\n";
    if (!figures.empty())
      for (const Figure& figure : section.figures) out += FigureLatex(figure, figures);
    for (const TitledTable& table : section.tables) out += TableLatex(table);
  }
  return out;
}

}  // namespace allometry::report
