#include <iostream>
#include <memory>

#include "cli/client.h"
#include "cli/export_rows.h"
#include "cli/output.h"
#include "cli/verb.h"
#include "common/files.h"

namespace allometry::cli {
namespace {

struct Options {
  std::string sweep;
  std::string what = "cells";
  std::string file;
  ConnectOptions connect;
  OutputOptions output{.format = "csv"};
};

int Export(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const auto client, Client::Open(options.connect));
  ALLO_ASSIGN_OR_FAIL(const auto rows, ReadExport(*client, options.sweep, options.what));
  const common::Table table = RowsTable(rows, options.what);
  if (options.file.empty()) {
    Print(table, options.output);
    return kExitOk;
  }
  const auto written = common::WriteFileAtomically(options.file, common::Render(table, FormatOf(options.output), 0));
  if (!written) return Fail(written.error());
  std::cerr << options.file << ": " << rows.size() << " rows\n";
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("export", "Write finished cells, their scores or their metrics as tidy rows");
  verb->add_option("sweep", options->sweep, "Name of the sweep (default: all)");
  verb->add_option("--what", options->what, "What a row is")
      ->check(CLI::IsMember({"cells", "scores", "metrics"}))
      ->capture_default_str();
  verb->add_option("-o,--output", options->file, "File to write (default: standard output)");
  AddConnectOptions(verb, &options->connect);
  AddOutputOptions(verb, &options->output);
  OnRun(verb, [options] { return Export(*options); });
}

const VerbRegistration kExport(115, Declare);

}  // namespace
}  // namespace allometry::cli
