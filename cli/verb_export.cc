#include <algorithm>
#include <iostream>
#include <memory>

#include "cli/client.h"
#include "cli/export_rows.h"
#include "cli/output.h"
#include "cli/verb.h"
#include "common/atomic_file.h"

namespace allometry::cli::verb_export {
namespace {

struct Options {
  std::string sweep;
  std::string what = "cells";
  std::string file, database;
  ConnectOptions connect;
  OutputOptions output{.format = "csv"};
};

// Text that is made where the rows are, and never held whole.
bool IsStreamed(const Options& options) {
  return options.output.format == "jsonl" || (options.output.format == "csv" && options.what == "metrics");
}

common::Status WriteTo(std::ostream& out, const std::string& text) {
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  return out ? common::Ok() : common::Status(common::Unavailable("standard output cannot be written to"));
}

common::Status Stream(const Options& options, const ExportSource& source) {
  if (options.file.empty())
    return StreamExport(source, options.output.format,
                        [](const std::string& text) { return WriteTo(std::cout, text); });
  ALLO_ASSIGN_OR_RETURN(auto file, common::AtomicFile::Create(options.file));
  int64_t lines = options.output.format == "csv" ? -1 : 0;  // without the header
  ALLO_RETURN_IF_ERROR(StreamExport(source, options.output.format, [&](const std::string& text) {
    lines += std::ranges::count(text, '\n');
    return file.Append(text);
  }));
  ALLO_RETURN_IF_ERROR(file.Commit());
  std::cerr << options.file << ": " << lines << " rows\n";
  return common::Ok();
}

common::Status WriteTable(const Options& options, const ExportSource& source) {
  ALLO_ASSIGN_OR_RETURN(const auto rows, ReadExport(source));
  const common::Table table = RowsTable(rows, options.what);
  if (options.file.empty()) {
    Print(table, options.output);
    return common::Ok();
  }
  ALLO_ASSIGN_OR_RETURN(auto file, common::AtomicFile::Create(options.file));
  ALLO_RETURN_IF_ERROR(file.Append(common::Render(table, FormatOf(options.output), 0)));
  ALLO_RETURN_IF_ERROR(file.Commit());
  std::cerr << options.file << ": " << rows.size() << " rows\n";
  return common::Ok();
}

int Export(const Options& options) {
  std::unique_ptr<Client> client;
  if (options.database.empty()) {
    ALLO_ASSIGN_OR_FAIL(client, Client::Open(options.connect));
  }
  const ExportSource source{client.get(), options.database, options.sweep, options.what};
  const common::Status done = IsStreamed(options) ? Stream(options, source) : WriteTable(options, source);
  return done ? kExitOk : Fail(done.error());
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("export", "Write finished cells, their scores or their metrics as tidy rows");
  verb->add_option("sweep", options->sweep, "Name of the sweep (default: all)");
  verb->add_option("--what", options->what, "What a row is")
      ->check(CLI::IsMember({"cells", "scores", "metrics"}))
      ->capture_default_str();
  verb->add_option("-o,--output", options->file, "File to write (default: standard output)");
  verb->add_option("--format", options->output.format, "How to print; jsonl: one JSON object a line")
      ->check(CLI::IsMember({"table", "csv", "json", "jsonl", "markdown"}))
      ->capture_default_str();
  verb->add_option("--db", options->database, "Database file to read instead of asking a coordinator");
  AddConnectOptions(verb, &options->connect);
  OnRun(verb, [options] { return Export(*options); });
}

const VerbRegistration kExport(115, Declare);

}  // namespace
}  // namespace allometry::cli::verb_export
