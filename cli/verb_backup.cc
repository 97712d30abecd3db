#include <filesystem>
#include <iostream>
#include <memory>

#include "cli/client.h"
#include "cli/verb.h"

namespace allometry::cli::verb_backup {
namespace {

struct Options {
  std::string path;
  ConnectOptions connect;
};

int Backup(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const auto client, Client::Open(options.connect));
  v1::BackupRequest request;
  request.set_path(std::filesystem::absolute(options.path).string());
  ALLO_ASSIGN_OR_FAIL(
      const v1::BackupResponse answer,
      client->Call(client->cluster(), &v1::ClusterService::Stub::Backup, request, std::chrono::seconds(3600)));
  std::cout << request.path() << ": " << answer.bytes() << " bytes\n";
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      program.add_subcommand("backup", "Copy the live database, consistently, on the coordinator's machine");
  verb->add_option("path", options->path, "File to write there")->required();
  AddConnectOptions(verb, &options->connect);
  OnRun(verb, [options] { return Backup(*options); });
}

const VerbRegistration kBackup(120, Declare);

}  // namespace
}  // namespace allometry::cli::verb_backup
