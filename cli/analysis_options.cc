#include "cli/analysis_options.h"

#include <iostream>

namespace allometry::cli {

void AddSourceOptions(CLI::App* verb, CellOptions* options) {
  verb->add_option("sweeps", options->sweeps,
                   "Sweeps and imported tables whose cells to take together; with --db, none means all");
  verb->add_option("--filter", options->filter, "As for allo list");
  verb->add_option("--exclude", options->exclude, "Cells to leave out")->delimiter(',');
  verb->add_option("--db", options->database, "Database file to read instead of asking a coordinator");
  AddConnectOptions(verb, &options->connect);
}

void AddCellOptions(CLI::App* verb, CellOptions* options) {
  AddSourceOptions(verb, options);
  AddOutputOptions(verb, &options->output);
}

common::Status CheckCells(const CellOptions& options) {
  if (options.sweeps.empty() && options.database.empty())
    return common::InvalidArgument("name at least one sweep, or a database file with --db");
  return common::Ok();
}

void AddTransformOption(CLI::App* verb, std::string* transform) {
  verb->add_option("--transform", *transform, "How axes are transformed (default: semilog)")
      ->check(CLI::IsMember({"semilog", "loglog"}));
}

void AddFlopsOption(CLI::App* verb, std::string* flops, const char* default_name) {
  verb->add_option("--flops", *flops, std::string("Which FLOPs (default: ") + default_name + ")")
      ->check(CLI::IsMember({"forward", "forward_without_head", "mtf", "six_nd", "training"}));
}

void AddParametersOption(CLI::App* verb, std::string* parameters) {
  verb->add_option("--parameters", *parameters, "Which parameters (default: total)")
      ->check(CLI::IsMember({"total", "non_embedding", "active"}));
}

void AddConfidenceOption(CLI::App* verb, double* confidence) {
  verb->add_option("--confidence", *confidence, "Of the intervals")->capture_default_str();
}

void AddTasksOption(CLI::App* verb, std::vector<std::string>* tasks) {
  verb->add_option("--tasks", *tasks,
                   "What D averages: tasks, glue, superglue, squad, tasks (default: whole benchmarks, else all tasks)")
      ->delimiter(',');
}

void AddConventionOptions(CLI::App* verb, ConventionOptions* options) {
  AddTransformOption(verb, &options->transform);
  AddFlopsOption(verb, &options->flops);
  AddParametersOption(verb, &options->parameters);
  AddConfidenceOption(verb, &options->confidence);
  AddTasksOption(verb, &options->tasks);
}

void AddAxesOption(CLI::App* verb, std::string* axes, const char* default_text) {
  verb->add_option("--axes", *axes, std::string("F,U F,D P,U P,D U,D s,U or s,D (default: ") + default_text + ")");
}

v1::SlopesRequest SlopesRequestOf(const CellOptions& cells, const ConventionOptions& conventions) {
  v1::SlopesRequest request;
  FillCells(cells, &request);
  for (const std::string& task : conventions.tasks) request.add_tasks(task);
  request.set_transform(conventions.transform);
  request.set_flops(conventions.flops);
  request.set_parameters(conventions.parameters);
  request.set_confidence(conventions.confidence);
  return request;
}

bool IsTidy(const OutputOptions& output) {
  const common::OutputFormat format = FormatOf(output);
  return format == common::OutputFormat::kCsv || format == common::OutputFormat::kJson;
}

void PrintAnswer(const std::vector<common::Table>& tables, const std::string& json, const OutputOptions& output) {
  if (FormatOf(output) == common::OutputFormat::kJson) {
    std::cout << common::Json::parse(json).dump(2) << '\n' << std::flush;
    return;
  }
  bool first = true;
  for (const common::Table& table : tables) {
    if (!first && (table.rows.empty() || FormatOf(output) == common::OutputFormat::kCsv)) continue;
    if (!first) std::cout << '\n';
    Print(table, output);
    first = false;
  }
}

}  // namespace allometry::cli
