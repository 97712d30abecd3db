#include <iostream>
#include <memory>

#include "cli/client.h"
#include "cli/verb.h"

namespace allometry::cli::verb_pause {
namespace {

struct Options {
  std::string sweep;
  bool stop_running = false;
  ConnectOptions connect;
};

int Pause(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const auto client, Client::Open(options.connect));
  v1::PauseRequest request;
  request.set_sweep(options.sweep);
  request.set_kill_running(options.stop_running);
  ALLO_ASSIGN_OR_FAIL(const v1::Sweep sweep, client->Call(client->sweeps(), &v1::SweepService::Stub::Pause, request));
  std::cout << sweep.name() << " is paused, " << sweep.running() << " cells still run; go on with: allo resume "
            << sweep.name() << '\n';
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("pause", "Start no more cells of a sweep");
  verb->add_option("sweep", options->sweep, "Name of the sweep")->required();
  verb->add_flag("--stop-running", options->stop_running, "Stop running cells too, each with a checkpoint");
  AddConnectOptions(verb, &options->connect);
  OnRun(verb, [options] { return Pause(*options); });
}

const VerbRegistration kPause(92, Declare);

}  // namespace
}  // namespace allometry::cli::verb_pause
