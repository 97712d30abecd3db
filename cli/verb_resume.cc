#include <iostream>
#include <memory>

#include "cli/client.h"
#include "cli/verb.h"

namespace allometry::cli::verb_resume {
namespace {

struct Options {
  std::string sweep;
  ConnectOptions connect;
};

int Resume(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const auto client, Client::Open(options.connect));
  v1::ResumeRequest request;
  request.set_sweep(options.sweep);
  ALLO_ASSIGN_OR_FAIL(const v1::Sweep sweep, client->Call(client->sweeps(), &v1::SweepService::Stub::Resume, request));
  std::cout << sweep.name() << " goes on: " << sweep.pending() << " cells wait\n";
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("resume", "Go on with a paused sweep");
  verb->add_option("sweep", options->sweep, "Name of the sweep")->required();
  AddConnectOptions(verb, &options->connect);
  OnRun(verb, [options] { return Resume(*options); });
}

const VerbRegistration kResume(93, Declare);

}  // namespace
}  // namespace allometry::cli::verb_resume
