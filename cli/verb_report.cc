#include <iostream>
#include <memory>

#include "cli/analysis_options.h"
#include "cli/verb.h"
#include "common/files.h"
#include "report/html.h"
#include "report/latex.h"
#include "report/markdown.h"
#include "report/render_figures.h"
#include "report/report.h"

namespace allometry::cli::verb_report {
namespace {

namespace fs = std::filesystem;

struct Options {
  CellOptions cells;
  ConventionOptions conventions;
  std::string baseline, title, format, file, figures, python;
  uint64_t seed = 0;
};

common::Result<report::Report> Build(const Options& options) {
  v1::ReportRequest request;
  *request.mutable_slopes() = SlopesRequestOf(options.cells, options.conventions);
  request.mutable_slopes()->set_baseline(options.baseline);
  request.set_title(options.title);
  request.set_seed(options.seed);
  ALLO_ASSIGN_OR_RETURN(const v1::ReportResponse response,
                        Ask(options.cells, request, &coordinator::Analyst::Report, &v1::AnalysisService::Stub::Report));
  ALLO_ASSIGN_OR_RETURN(const common::Json json, common::ParseJson(response.json(), "the report"));
  return report::ReportFromJson(json);
}

// By the name of the file, unless it was given.
std::string FormatOfReport(const Options& options) {
  if (!options.format.empty()) return options.format;
  const std::string extension = fs::path(options.file).extension();
  if (extension == ".md") return "markdown";
  if (extension == ".tex") return "latex";
  return extension == ".json" ? "json" : "html";
}

// Where the figures are, as a path from the file that shows them.
std::string FiguresFrom(const Options& options) {
  if (options.figures.empty()) return "";
  const fs::path folder = fs::absolute(options.file).parent_path();
  return fs::absolute(options.figures).lexically_normal().lexically_relative(folder.lexically_normal()).string();
}

common::Result<std::string> TextOf(const report::Report& report, const std::string& format, const Options& options) {
  const fs::path python = options.python.empty() ? report::DefaultPython() : fs::path(options.python);
  if (format == "html") {
    ALLO_ASSIGN_OR_RETURN(const report::Drawings drawings, report::RenderFigures(report, options.figures, python));
    return report::ToHtml(report, drawings);
  }
  if (!options.figures.empty()) {
    ALLO_ASSIGN_OR_RETURN(const report::Drawings drawings, report::RenderFigures(report, options.figures, python));
  }
  if (format == "json") return report::ToJson(report).dump(2) + "\n";
  return format == "latex" ? report::ToLatex(report, FiguresFrom(options))
                           : report::ToMarkdown(report, FiguresFrom(options));
}

int Report(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const report::Report report, Build(options));
  ALLO_ASSIGN_OR_FAIL(const std::string text, TextOf(report, FormatOfReport(options), options));
  if (const auto written = common::WriteFileAtomically(options.file, text); !written) return Fail(written.error());
  std::cout << options.file << ": " << report.summary << '\n';
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("report", "Write tables, figures and fits of a study as one page");
  verb->add_option("-o,--output", options->file, "File to write")->required();
  verb->add_option("--format", options->format, "html, markdown, latex or json (default: by the file's name)")
      ->check(CLI::IsMember({"html", "markdown", "latex", "json"}));
  verb->add_option("--figures", options->figures, "Folder for each figure as SVG, PNG, Vega-Lite and CSV");
  verb->add_option("--title", options->title, "Of the report (default: the sweeps' names)");
  verb->add_option("--baseline", options->baseline, "What others are compared with (default: transformer)");
  AddConventionOptions(verb, &options->conventions);
  verb->add_option("--seed", options->seed, "Of draws and bootstraps")->capture_default_str();
  verb->add_option("--python", options->python, "Interpreter that has vl-convert-python (default: that of .deps)");
  AddSourceOptions(verb, &options->cells);
  OnRun(verb, [options] { return Report(*options); });
}

const VerbRegistration kReport(111, Declare);

}  // namespace
}  // namespace allometry::cli::verb_report
