#include <memory>

#include "cli/client.h"
#include "cli/output.h"
#include "cli/tables.h"
#include "cli/verb.h"

namespace allometry::cli::verb_status {
namespace {

struct Options {
  ConnectOptions connect;
  OutputOptions output;
};

common::Json StatusJson(const v1::StatusResponse& status, const std::string& address) {
  return {{"address", address},
          {"cluster_id", status.cluster_id()},
          {"version", status.version()},
          {"commit", status.commit()},
          {"started_unix_ms", status.started_unix_ms()},
          {"data_dir", status.data_dir()},
          {"workers", status.workers()},
          {"slots", status.slots()},
          {"free_slots", status.free_slots()},
          {"runs", status.runs()},
          {"pending", status.pending()},
          {"running", status.running()},
          {"database_bytes", status.database_bytes()},
          {"blob_bytes", status.blob_bytes()},
          {"free_disk_bytes", status.free_disk_bytes()},
          {"batch_histogram", std::vector<int64_t>(status.batch_histogram().begin(), status.batch_histogram().end())},
          {"storage_error", status.storage_error()}};
}

std::string Text(const v1::StatusResponse& status, const std::string& address) {
  return "coordinator " + address + " (" + status.version() + ", " + status.commit() + "), data in " +
         status.data_dir() + ": " + std::to_string(status.workers()) + " workers, " +
         std::to_string(status.free_slots()) + " of " + std::to_string(status.slots()) + " slots free, " +
         std::to_string(status.running()) + " runs running, " + std::to_string(status.pending()) + " pending, " +
         common::FormatQuantity(static_cast<double>(status.free_disk_bytes())) + "B of disk free";
}

int Status(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const auto client, Client::Open(options.connect));
  ALLO_ASSIGN_OR_FAIL(const v1::StatusResponse status,
                      client->Call(client->cluster(), &v1::ClusterService::Stub::Status, v1::StatusRequest()));
  ALLO_ASSIGN_OR_FAIL(const v1::ListResponse list,
                      client->Call(client->sweeps(), &v1::SweepService::Stub::List, v1::ListRequest()));
  common::Table table = SweepsTable({list.sweeps().begin(), list.sweeps().end()});
  table.notes.push_back(Text(status, client->address()));
  if (!status.storage_error().empty()) table.notes.push_back("WRITES FAIL: " + status.storage_error());
  common::Json json = common::TableToJson(table);
  json["coordinator"] = StatusJson(status, client->address());
  Print(table, json, options.output);
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("status", "Show the coordinator and its sweeps");
  AddConnectOptions(verb, &options->connect);
  AddOutputOptions(verb, &options->output);
  OnRun(verb, [options] { return Status(*options); });
}

const VerbRegistration kStatus(60, Declare);

}  // namespace
}  // namespace allometry::cli::verb_status
