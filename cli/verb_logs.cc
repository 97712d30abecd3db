#include <iostream>
#include <memory>

#include "cli/client.h"
#include "cli/verb.h"

namespace allometry::cli::verb_logs {
namespace {

struct Options {
  std::string cell;
  int64_t attempt = 0;
  bool follow = false;
  std::string stream;
  int64_t rank = 0;
  ConnectOptions connect;
};

int Logs(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const auto client, Client::Open(options.connect));
  grpc::ClientContext context;
  client->Prepare(&context);
  v1::LogsRequest request;
  request.set_cell(options.cell);
  request.set_attempt(options.attempt);
  request.set_follow(options.follow);
  const auto reader = client->sweeps().Logs(&context, request);
  v1::LogChunk chunk;
  const std::string rank = options.rank > 0 ? "rank " + std::to_string(options.rank) + " " : "";
  const auto wanted = [&](const std::string& stream) {
    if (!options.stream.empty()) return stream == rank + options.stream;
    return stream == rank + "stdout" || stream == rank + "stderr";
  };
  while (reader->Read(&chunk))
    if (wanted(chunk.stream())) std::cout << chunk.data() << std::flush;
  const grpc::Status status = reader->Finish();
  return status.ok() ? kExitOk : Fail(client->ErrorOf(status));
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("logs", "Print what a cell's trainer wrote");
  verb->add_option("cell", options->cell, "<sweep>/<cell>")->required();
  verb->add_option("--attempt", options->attempt, "Attempt id, as allo explain lists them (default: the newest)");
  verb->add_flag("-f,--follow", options->follow, "Go on until the run ends");
  verb->add_option("--stream", options->stream, "Only stdout or only stderr")
      ->check(CLI::IsMember({"stdout", "stderr"}));
  verb->add_option("--rank", options->rank, "Of a run on several devices: whose trainer (default: 0, which reports)")
      ->check(CLI::NonNegativeNumber);
  AddConnectOptions(verb, &options->connect);
  OnRun(verb, [options] { return Logs(*options); });
}

const VerbRegistration kLogs(75, Declare);

}  // namespace
}  // namespace allometry::cli::verb_logs
