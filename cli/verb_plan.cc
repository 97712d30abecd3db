#include <memory>

#include "cli/client.h"
#include "cli/output.h"
#include "cli/sweep_input.h"
#include "cli/tables.h"
#include "cli/verb.h"
#include "coordinator/grid/grid.h"

namespace allometry::cli::verb_plan {
namespace {

struct Options {
  std::string file;
  std::string data_root;
  bool offline = false;
  double device_flops = 0;
  ConnectOptions connect;
  OutputOptions output;
};

common::Result<v1::PlanResponse> PlanHere(const SweepInput& input) {
  ALLO_ASSIGN_OR_RETURN(const std::vector<coordinator::Cell> cells, coordinator::Expand(input.spec, input.manifest));
  v1::PlanResponse plan;
  double flops = 0;
  for (const coordinator::Cell& cell : cells) {
    v1::PlannedCell* planned = plan.add_cells();
    planned->set_cell(cell.name);
    planned->set_kind(cell.kind);
    planned->set_architecture(cell.architecture);
    planned->set_size(cell.size);
    planned->set_seed(cell.seed);
    planned->set_identity(cell.identity);
    *planned->mutable_costs() = cell.costs;
    planned->set_run_json(cell.run_json);
    planned->set_devices(cell.devices);
    planned->set_slots_per_gpu(cell.slots_per_gpu);
    flops += cell.costs.training_flops();
  }
  plan.set_training_flops(flops);
  return plan;
}

// A coordinator that does not run, or none at all, is no obstacle to planning.
bool Absent(const common::Error& error) {
  return error.code == common::ErrorCode::kNotFound || error.code == common::ErrorCode::kUnavailable;
}

common::Result<v1::PlanResponse> PlanThere(const Options& options, const SweepInput& input) {
  ALLO_ASSIGN_OR_RETURN(const auto client, Client::Open(options.connect));
  v1::PlanRequest request;
  *request.mutable_spec() = input.spec;
  request.mutable_manifest()->Assign(input.manifest.begin(), input.manifest.end());
  return client->Call(client->sweeps(), &v1::SweepService::Stub::Plan, request, std::chrono::seconds(600));
}

common::Json PlanJson(const common::Table& table, const v1::PlanResponse& plan) {
  common::Json json = common::TableToJson(table);
  for (int i = 0; i < plan.cells_size(); ++i) {
    common::Json& cell = json["cells"][static_cast<size_t>(i)];
    cell["identity"] = plan.cells(i).identity();
    cell["run"] = common::Json::parse(plan.cells(i).run_json());
  }
  json["training_flops"] = plan.training_flops();
  json["expected_seconds"] = plan.expected_seconds() > 0 ? common::Json(plan.expected_seconds()) : common::Json();
  return json;
}

int Plan(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const SweepInput input, ReadSweepInput(options.file, options.data_root));
  auto there = options.offline ? common::Result<v1::PlanResponse>(common::NotFound("")) : PlanThere(options, input);
  const bool named = !options.connect.coordinator.empty();
  if (!there && (named || !Absent(there.error()))) return Fail(there.error());
  const bool asked = there.ok();
  ALLO_ASSIGN_OR_FAIL(const v1::PlanResponse plan, asked ? std::move(there) : PlanHere(input));
  common::Table table = PlanTable(plan, asked);
  common::Json json = PlanJson(table, plan);
  if (options.device_flops > 0) {
    const double hours = plan.training_flops() / options.device_flops / 3600;
    json["device_hours"] = hours;
    table.notes.push_back(common::FormatQuantity(hours) + " device hours at " +
                          common::FormatQuantity(options.device_flops) + " FLOP/s");
  }
  Print(table, json, options.output);
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand(
      "plan", "Show every cell of a sweep with parameters, FLOPs, memory and what exists already; changes nothing");
  verb->add_option("sweep", options->file, "Sweep file (YAML)")->required();
  AddDataRootOption(verb, &options->data_root);
  verb->add_flag("--offline", options->offline, "Ask no coordinator");
  verb->add_option("--device-flops", options->device_flops,
                   "FLOP/s that one device keeps up while it trains: says how many device hours the sweep takes")
      ->check(CLI::PositiveNumber);
  AddConnectOptions(verb, &options->connect);
  AddOutputOptions(verb, &options->output);
  OnRun(verb, [options] { return Plan(*options); });
}

const VerbRegistration kPlan(20, Declare);

}  // namespace
}  // namespace allometry::cli::verb_plan
