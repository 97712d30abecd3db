#include <iostream>
#include <memory>

#include "cli/client.h"
#include "cli/output.h"
#include "cli/tables.h"
#include "cli/verb.h"

namespace allometry::cli::verb_workers {
namespace {

struct Options {
  std::string worker;
  bool now = false;
  ConnectOptions connect;
  OutputOptions output;
};

int ListWorkers(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const auto client, Client::Open(options.connect));
  ALLO_ASSIGN_OR_FAIL(
      const v1::ListWorkersResponse list,
      client->Call(client->cluster(), &v1::ClusterService::Stub::ListWorkers, v1::ListWorkersRequest()));
  Print(WorkersTable({list.workers().begin(), list.workers().end()}), options.output);
  return kExitOk;
}

int Drain(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const auto client, Client::Open(options.connect));
  v1::DrainWorkerRequest request;
  request.set_worker(options.worker);
  request.set_now(options.now);
  ALLO_ASSIGN_OR_FAIL(const v1::DrainWorkerResponse answer,
                      client->Call(client->cluster(), &v1::ClusterService::Stub::DrainWorker, request));
  std::cout << answer.worker().name() << " is draining: " << answer.worker().busy() << " slots are busy\n";
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("workers", "List or drain workers");
  verb->require_subcommand(1);
  CLI::App* list = verb->add_subcommand("list", "List workers");
  AddConnectOptions(list, &options->connect);
  AddOutputOptions(list, &options->output);
  OnRun(list, [options] { return ListWorkers(*options); });
  CLI::App* drain = verb->add_subcommand("drain", "Give a worker nothing more to do");
  drain->add_option("worker", options->worker, "Name or id of the worker")->required();
  drain->add_flag("--now", options->now, "Stop what it runs, each with a checkpoint");
  AddConnectOptions(drain, &options->connect);
  OnRun(drain, [options] { return Drain(*options); });
}

const VerbRegistration kWorkers(45, Declare);

}  // namespace
}  // namespace allometry::cli::verb_workers
