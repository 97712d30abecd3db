#include <iostream>
#include <memory>

#include "cli/client.h"
#include "cli/verb.h"
#include "common/files.h"
#include "coordinator/rpc/imports.h"

namespace allometry::cli::verb_import {
namespace {

struct Options {
  std::string file, name, mapping, format, database;
  bool replace = false, remove = false;
  ConnectOptions connect;
};

// "runs.csv" is CSV, "runs.jsonl" and "runs.json" are JSON lines.
common::Result<std::string> FormatOfFile(const Options& options) {
  if (!options.format.empty()) return options.format;
  const std::string extension = std::filesystem::path(options.file).extension();
  if (extension == ".csv") return std::string("csv");
  if (extension == ".jsonl" || extension == ".json" || extension == ".ndjson") return std::string("jsonl");
  return common::InvalidArgument("the name of '" + options.file +
                                 "' does not tell whether it is CSV or JSON lines: give --format csv or jsonl");
}

common::Result<v1::ImportRequest> RequestOf(const Options& options) {
  v1::ImportRequest request;
  request.set_name(options.name.empty() ? std::filesystem::path(options.file).stem().string() : options.name);
  ALLO_ASSIGN_OR_RETURN(const std::string format, FormatOfFile(options));
  ALLO_ASSIGN_OR_RETURN(const std::string text, common::ReadFile(options.file));
  request.set_format(format);
  request.set_text(text);
  request.set_mapping(options.mapping);
  request.set_source(options.file);
  request.set_replace(options.replace);
  return request;
}

common::Result<v1::ImportResponse> Send(const Options& options, const v1::ImportRequest& request) {
  if (!options.database.empty()) return coordinator::ImportIntoFile(options.database, request);
  ALLO_ASSIGN_OR_RETURN(const auto client, Client::Open(options.connect));
  return client->Call(client->analysis(), &v1::AnalysisService::Stub::Import, request);
}

common::Status Remove(const Options& options) {
  if (!options.database.empty()) return coordinator::RemoveImportFromFile(options.database, options.file);
  ALLO_ASSIGN_OR_RETURN(const auto client, Client::Open(options.connect));
  v1::RemoveImportRequest request;
  request.set_name(options.file);
  const auto removed = client->Call(client->analysis(), &v1::AnalysisService::Stub::RemoveImport, request);
  return removed ? common::Ok() : common::Status(removed.error());
}

void PrintImport(const std::string& name, const v1::ImportResponse& import) {
  std::cout << name << ": " << import.runs() << (import.runs() == 1 ? " run\n" : " runs\n");
  for (const std::string& note : import.notes()) std::cout << note << '\n';
  std::string unused;
  for (const std::string& column : import.unused_columns()) unused += (unused.empty() ? "" : ", ") + column;
  if (!unused.empty()) std::cout << "columns not used: " << unused << '\n';
}

int Import(const Options& options) {
  if (options.remove) {
    if (const auto removed = Remove(options); !removed) return Fail(removed.error());
    std::cout << options.file << ": removed\n";
    return kExitOk;
  }
  ALLO_ASSIGN_OR_FAIL(const v1::ImportRequest request, RequestOf(options));
  ALLO_ASSIGN_OR_FAIL(const v1::ImportResponse import, Send(options, request));
  PrintImport(request.name(), import);
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("import", "Take in a table of runs trained elsewhere, to analyse as a sweep");
  verb->add_option("file", options->file, "CSV or JSON lines, a run a row; with --remove the import's name")
      ->required();
  verb->add_option(
      "--map", options->mapping,
      "Columns by field, as params=N,tokens=D,loss=final_loss,architecture=model; field:=text for all rows");
  verb->add_option("--name", options->name, "How the table is called from then on (default: the file's name)");
  verb->add_option("--format", options->format, "csv or jsonl (default: by the file's name)")
      ->check(CLI::IsMember({"csv", "jsonl"}));
  verb->add_flag("--replace", options->replace, "In place of an import of that name");
  verb->add_flag("--remove", options->remove, "Forget an import");
  verb->add_option("--db", options->database, "Database file to keep it in, without a coordinator; created if absent");
  AddConnectOptions(verb, &options->connect);
  OnRun(verb, [options] { return Import(*options); });
}

const VerbRegistration kImport(112, Declare);

}  // namespace
}  // namespace allometry::cli::verb_import
