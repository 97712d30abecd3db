#include <iostream>
#include <memory>

#include "cli/client.h"
#include "cli/names.h"
#include "cli/output.h"
#include "cli/tables.h"
#include "cli/verb.h"

namespace allometry::cli::verb_explain {
namespace {

struct Options {
  std::string cell;
  ConnectOptions connect;
  OutputOptions output;
};

common::Json Parsed(const std::string& text) {
  const auto json = common::ParseJson(text, "json");
  return json ? *json : common::Json();
}

common::Json ExplainJson(const v1::ExplainResponse& answer, const common::Table& attempts) {
  common::Json json = common::TableToJson(attempts);
  for (int i = 0; i < answer.attempts_size(); ++i)
    json["attempts"][static_cast<size_t>(i)]["provenance"] = Parsed(answer.attempts(i).provenance_json());
  json["text"] = answer.text();
  json["cell"] = {{"name", answer.cell().cell()},
                  {"state", StateName(answer.cell().state())},
                  {"waiting", ReasonName(answer.cell().waiting())},
                  {"identity", answer.cell().identity()},
                  {"error", answer.cell().error()},
                  {"result", Parsed(answer.cell().result_json())}};
  json["parents"] = common::Json::array();
  for (const v1::CellStatus& parent : answer.parents())
    json["parents"].push_back({{"name", parent.cell()}, {"state", StateName(parent.state())}});
  return json;
}

int Explain(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const auto client, Client::Open(options.connect));
  v1::ExplainRequest request;
  request.set_cell(options.cell);
  ALLO_ASSIGN_OR_FAIL(const v1::ExplainResponse answer,
                      client->Call(client->sweeps(), &v1::SweepService::Stub::Explain, request));
  const common::Table attempts = AttemptsTable({answer.attempts().begin(), answer.attempts().end()});
  const bool for_people = FormatOf(options.output) == common::OutputFormat::kTable;
  if (for_people) std::cout << answer.text() << "\n";
  if (!for_people || answer.attempts_size() > 0) Print(attempts, ExplainJson(answer, attempts), options.output);
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("explain", "Say why a cell waits, failed or what it did, attempt by attempt");
  verb->add_option("cell", options->cell, "<sweep>/<cell>")->required();
  AddConnectOptions(verb, &options->connect);
  AddOutputOptions(verb, &options->output);
  OnRun(verb, [options] { return Explain(*options); });
}

const VerbRegistration kExplain(80, Declare);

}  // namespace
}  // namespace allometry::cli::verb_explain
