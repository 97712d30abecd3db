#include <iostream>
#include <memory>

#include "cli/client.h"
#include "cli/verb.h"

namespace allometry::cli::verb_cancel {
namespace {

struct Options {
  std::string sweep;
  std::vector<std::string> cells;
  ConnectOptions connect;
};

int Cancel(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const auto client, Client::Open(options.connect));
  v1::CancelRequest request;
  request.set_sweep(options.sweep);
  for (const std::string& cell : options.cells) request.add_cells(cell);
  ALLO_ASSIGN_OR_FAIL(const v1::CancelResponse answer,
                      client->Call(client->sweeps(), &v1::SweepService::Stub::Cancel, request));
  std::cout << options.sweep << ": " << answer.withdrawn() << " cells withdrawn, " << answer.stopped()
            << " running ones stopped; results are kept\n";
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("cancel", "Stop a sweep or some of its cells; results are kept");
  verb->add_option("sweep", options->sweep, "Name of the sweep")->required();
  verb->add_option("cells", options->cells, "Cells of it (default: all)");
  AddConnectOptions(verb, &options->connect);
  OnRun(verb, [options] { return Cancel(*options); });
}

const VerbRegistration kCancel(90, Declare);

}  // namespace
}  // namespace allometry::cli::verb_cancel
