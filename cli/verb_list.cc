#include <memory>

#include "cli/client.h"
#include "cli/names.h"
#include "cli/output.h"
#include "cli/tables.h"
#include "cli/verb.h"

namespace allometry::cli::verb_list {
namespace {

constexpr int kPage = 10'000;

struct Options {
  std::string sweep;
  std::vector<std::string> states;
  std::string filter;
  ConnectOptions connect;
  OutputOptions output;
};

common::Result<v1::ListRequest> RequestOf(const Options& options) {
  v1::ListRequest request;
  request.set_sweep(options.sweep);
  request.set_filter(options.filter);
  request.set_page_size(kPage);
  request.set_with_results(true);
  for (const std::string& name : options.states) {
    ALLO_ASSIGN_OR_RETURN(const v1::RunState state, ParseState(name));
    request.add_states(state);
  }
  return request;
}

// The cells' JSON carries what the table has no room for.
common::Json CellsJson(const common::Table& table, const std::vector<v1::CellStatus>& cells) {
  common::Json json = common::TableToJson(table);
  for (size_t i = 0; i < cells.size(); ++i) {
    common::Json& cell = json["cells"][i];
    cell["kind"] = KindName(cells[i].kind());
    cell["architecture"] = cells[i].architecture();
    cell["size"] = cells[i].size();
    cell["seed"] = cells[i].seed();
    cell["identity"] = cells[i].identity();
    cell["run_id"] = cells[i].run_id();
    const auto result = common::ParseJson(cells[i].result_json(), "result");
    cell["result"] = result ? *result : common::Json();
  }
  return json;
}

int List(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(v1::ListRequest request, RequestOf(options));
  ALLO_ASSIGN_OR_FAIL(const auto client, Client::Open(options.connect));
  std::vector<v1::Sweep> sweeps;
  std::vector<v1::CellStatus> cells;
  do {
    ALLO_ASSIGN_OR_FAIL(const v1::ListResponse page,
                        client->Call(client->sweeps(), &v1::SweepService::Stub::List, request));
    sweeps.insert(sweeps.end(), page.sweeps().begin(), page.sweeps().end());
    cells.insert(cells.end(), page.cells().begin(), page.cells().end());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  if (options.sweep.empty()) {
    Print(SweepsTable(sweeps), options.output);
    return kExitOk;
  }
  const common::Table table = CellsTable(cells);
  Print(table, CellsJson(table, cells), options.output);
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("list", "List sweeps, or the cells of one");
  verb->add_option("sweep", options->sweep, "Name of the sweep whose cells to list");
  verb->add_option("--state", options->states, "Only cells in these states (pending, running, done, failed, diverged)")
      ->delimiter(',');
  verb->add_option(
      "--filter", options->filter,
      "Only cells that match, comma-separated: architecture=glu, size=base, seed=1, kind=finetune, tag.group=a");
  AddConnectOptions(verb, &options->connect);
  AddOutputOptions(verb, &options->output);
  OnRun(verb, [options] { return List(*options); });
}

const VerbRegistration kList(65, Declare);

}  // namespace
}  // namespace allometry::cli::verb_list
