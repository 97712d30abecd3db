#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <thread>

#include "cli/client.h"
#include "cli/interrupt.h"
#include "cli/verb.h"
#include "coordinator/server/server.h"

namespace allometry::cli::verb_coordinator {
namespace {

struct Options {
  std::string data_dir;
  coordinator::CoordinatorOptions coordinator;
  std::string certificate, key;
  int64_t lease_s = 300, renew_s = 10;
};

int Coordinate(Options& options) {
  coordinator::CoordinatorOptions& settings = options.coordinator;
  settings.data_dir = DataDirOf(options.data_dir);
  settings.listen.tls_certificate = options.certificate;
  settings.listen.tls_key = options.key;
  settings.lease_ttl_ms = options.lease_s * 1000;
  settings.renew_interval_ms = options.renew_s * 1000;
  if (const char* token = std::getenv("ALLOMETRY_TOKEN"); token && settings.listen.token.empty())
    settings.listen.token = token;
  if (options.renew_s * 3 > options.lease_s)
    return Fail(common::InvalidArgument("--renew must be at most a third of --lease, or one lost message ends leases"));
  CountInterrupts();
  ALLO_ASSIGN_OR_FAIL(const auto server, coordinator::CoordinatorServer::Start(settings));
  std::cout << "coordinator at " << server->address() << ", data in " << server->data_dir().string() << std::endl;
  while (InterruptCount() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  server->Stop();
  std::cout << "coordinator stopped; running leases go on at the next start" << std::endl;
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      program.add_subcommand("coordinator", "Run the service that workers join and sweeps are submitted to");
  AddDataOption(verb, &options->data_dir);
  verb->add_option("--listen", options->coordinator.listen.address,
                   "host:port; an address that other machines reach needs TLS and a token")
      ->capture_default_str();
  verb->add_option("--token", options->coordinator.listen.token,
                   "Token that every call must carry (default: $ALLOMETRY_TOKEN)");
  verb->add_option("--tls-certificate", options->certificate, "PEM file");
  verb->add_option("--tls-key", options->key, "PEM file");
  verb->add_option("--lease", options->lease_s, "Seconds after which a silent worker's runs are given to others")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  verb->add_option("--renew", options->renew_s, "Seconds between a worker's messages")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  OnRun(verb, [options] { return Coordinate(*options); });
}

const VerbRegistration kCoordinator(30, Declare);

}  // namespace
}  // namespace allometry::cli::verb_coordinator
