#include <iostream>
#include <memory>

#include "cli/client.h"
#include "cli/verb.h"

namespace allometry::cli::verb_retry {
namespace {

struct Options {
  std::string sweep;
  std::vector<std::string> cells;
  ConnectOptions connect;
};

int Retry(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const auto client, Client::Open(options.connect));
  v1::RetryRequest request;
  request.set_sweep(options.sweep);
  for (const std::string& cell : options.cells) request.add_cells(cell);
  ALLO_ASSIGN_OR_FAIL(const v1::RetryResponse answer,
                      client->Call(client->sweeps(), &v1::SweepService::Stub::Retry, request));
  std::cout << options.sweep << ": " << answer.retried() << " cells are tried again\n";
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("retry", "Try failed and diverged cells again");
  verb->add_option("sweep", options->sweep, "Name of the sweep")->required();
  verb->add_option("cells", options->cells,
                   "Cells of it (default: every failed or diverged one); a done one whose model was "
                   "not kept is trained again if the sweep has keep_models: all");
  AddConnectOptions(verb, &options->connect);
  OnRun(verb, [options] { return Retry(*options); });
}

const VerbRegistration kRetry(91, Declare);

}  // namespace
}  // namespace allometry::cli::verb_retry
