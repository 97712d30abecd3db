#include <iostream>
#include <memory>

#include "cli/client.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/outputs.h"
#include "cli/trainers.h"
#include "cli/verb.h"
#include "common/json.h"
#include "common/program_output.h"

namespace allometry::cli::verb_checkpoint {
namespace {

using common::ColumnKind;
using common::Json;
using common::TableValue;

struct Options {
  std::string folder;
  std::string to;
  std::string out;
  std::string tokenizer;
  std::string cell;
  std::string what;
  ConnectOptions connect;
  OutputOptions output;
};

// allo has no LibTorch: the trainer beside it reads and writes tensors, and prints what it wrote as one JSON object.
common::Result<std::vector<std::string>> TrainerCommand(const std::vector<std::string>& words) {
  ALLO_ASSIGN_OR_RETURN(std::vector<std::string> command, BuiltinTrainer("converts models"));
  command.emplace_back("checkpoint");
  command.insert(command.end(), words.begin(), words.end());
  return command;
}

TableValue Value(const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_string()) return value.get<std::string>();
  return {};
}

common::Table ModelsTable(const Json& model) {
  common::Table table;
  table.name = "models";
  table.columns = {{"folder", "folder", "", ColumnKind::kText},
                   {"format", "format", "", ColumnKind::kText},
                   {"architecture", "architecture", "", ColumnKind::kText},
                   {"layers", "layers", "", ColumnKind::kInteger},
                   {"d_model", "d_model", "", ColumnKind::kInteger},
                   {"parameters", "params", "", ColumnKind::kQuantity},
                   {"non_embedding_parameters", "non-emb", "", ColumnKind::kQuantity},
                   {"step", "step", "", ColumnKind::kInteger},
                   {"precision", "precision", "", ColumnKind::kText},
                   {"tokenizer", "tokenizer", "", ColumnKind::kBoolean}};
  std::vector<TableValue> row;
  for (const common::Column& column : table.columns) {
    if (column.name == "layers")
      row.push_back(Value(model.at("shape").at("encoder_layers")));
    else if (column.name == "d_model")
      row.push_back(Value(model.at("shape").at("d_model")));
    else
      row.push_back(Value(model.at(column.name)));
  }
  table.rows.push_back(std::move(row));
  return table;
}

int RunTrainer(const std::vector<std::string>& words, const OutputOptions& output) {
  ALLO_ASSIGN_OR_FAIL(const auto command, TrainerCommand(words));
  const common::ProgramOutput trainer = common::RunAndRead(command, /*errors_too=*/false);
  if (trainer.exit_code > 0) return trainer.exit_code;  // it has said why
  if (trainer.exit_code < 0) return Fail(common::Internal("'" + command[0] + "' was killed or could not be started"));
  ALLO_ASSIGN_OR_FAIL(const Json model, common::ParseJson(trainer.text, command[0]));
  const common::Table table = ModelsTable(model);
  Json json = common::TableToJson(table);
  for (const char* key : {"shape", "options", "active_parameters"}) json[key] = model.at(key);
  Print(table, json, output);
  return kExitOk;
}

int Export(const Options& options) {
  std::vector<std::string> words{"export", options.folder, "--to", options.to, "-o", options.out};
  if (!options.tokenizer.empty()) words.insert(words.end(), {"--tokenizer", options.tokenizer});
  return RunTrainer(words, options.output);
}

// What a cell left, as a folder: the model of a training, the data of a preparation, or what is named.
int Fetch(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const auto client, Client::Open(options.connect));
  v1::OutputsRequest request;
  request.set_cell(options.cell);
  request.set_output(options.what);
  ALLO_ASSIGN_OR_FAIL(const v1::OutputsResponse answer,
                      client->Call(client->sweeps(), &v1::SweepService::Stub::Outputs, request));
  if (answer.outputs().empty()) return Fail(common::NotFound("cell '" + options.cell + "' left nothing"));
  const v1::Output& output = answer.outputs(0);
  CountInterrupts();
  const auto fetched = FetchOutput(*client, options.connect.ca_file, output, options.out);
  if (InterruptCount() > 0) return kExitInterrupted;
  if (!fetched) return Fail(fetched.error());
  if (output.name() == "model") return RunTrainer({"show", options.out}, options.output);
  std::cout << options.out << ": " << output.files_size() << " files\n";
  return kExitOk;
}

void AddFolders(CLI::App* verb, const std::shared_ptr<Options>& options, const char* folder, const char* out) {
  verb->add_option("folder", options->folder, folder)->required();
  if (out) verb->add_option("-o,--output", options->out, out)->required();
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("checkpoint", "Fetch, show and exchange trained models");
  verb->require_subcommand(1);
  CLI::App* give = verb->add_subcommand("export", "Write a model as another program reads it");
  AddFolders(give, options, "A run's output 'model', or its checkpoint/step-N", "Folder to write; new or empty");
  give->add_option("--to", options->to, "Whose form")->required()->check(CLI::IsMember({"huggingface"}));
  give->add_option("--tokenizer", options->tokenizer,
                   "SentencePiece model to go along, or a folder with spiece.model (default: the model's own)");
  AddOutputOptions(give, &options->output);
  OnRun(give, [options] { return Export(*options); });
  CLI::App* fetch =
      verb->add_subcommand("fetch", "Copy what a done cell left, its model, data or predictions, from the coordinator");
  fetch->add_option("cell", options->cell, "<sweep>/<cell>")->required();
  fetch->add_option("-o,--output", options->out, "Folder to write; new or empty")->required();
  fetch->add_option("--what", options->what, "Which of them (default: the model, or a preparation's data)")
      ->check(CLI::IsMember({"model", "data", "predictions"}));
  AddConnectOptions(fetch, &options->connect);
  AddOutputOptions(fetch, &options->output);
  OnRun(fetch, [options] { return Fetch(*options); });
  CLI::App* take = verb->add_subcommand("import", "Make a model to fine-tune from one of Hugging Face's");
  AddFolders(take, options, "Folder with config.json and model.safetensors", "Folder to write; new or empty");
  AddOutputOptions(take, &options->output);
  OnRun(take, [options] { return RunTrainer({"import", options->folder, "-o", options->out}, options->output); });
  CLI::App* show = verb->add_subcommand("show", "Show what a folder holds");
  AddFolders(show, options, "A model of ours or of Hugging Face's", nullptr);
  AddOutputOptions(show, &options->output);
  OnRun(show, [options] { return RunTrainer({"show", options->folder}, options->output); });
}

const VerbRegistration kCheckpoint(117, Declare);

}  // namespace
}  // namespace allometry::cli::verb_checkpoint
