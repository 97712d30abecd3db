#include <memory>

#include "arch/architecture.h"
#include "cli/output.h"
#include "cli/verb.h"

namespace allometry::cli {
namespace {

using common::ColumnKind;
using common::Json;
using common::TableValue;

struct Options {
  std::string name;
  int64_t vocabulary = 0;
  int64_t input_length = 512;
  std::vector<std::string> options;
  OutputOptions output;
};

int ListArchitectures(const Options& options) {
  common::Table table;
  table.name = "architectures";
  table.columns = {{"name", "name", "", ColumnKind::kText},
                   {"numerics_version", "numerics", "", ColumnKind::kInteger},
                   {"options", "options", "", ColumnKind::kText},
                   {"paper", "paper", "", ColumnKind::kText}};
  for (const arch::Architecture* architecture : arch::Architectures()) {
    std::string names;
    for (const arch::OptionSpec& option : architecture->options()) names += (names.empty() ? "" : " ") + option.name;
    table.rows.push_back({std::string(architecture->name()), int64_t{architecture->numerics_version()}, OrNone(names),
                          std::string(architecture->paper())});
  }
  Print(table, options.output);
  return kExitOk;
}

// "activation=gelu" -> {"activation": "gelu"}; values are JSON where they can be.
common::Result<Json> ParseOptions(const std::vector<std::string>& given) {
  Json options = Json::object();
  for (const std::string& entry : given) {
    const size_t equals = entry.find('=');
    if (equals == std::string::npos) return common::InvalidArgument("--option is '" + entry + "'; it takes name=value");
    const std::string value = entry.substr(equals + 1);
    const auto parsed = common::ParseJson(value, "option");
    options[entry.substr(0, equals)] = parsed ? *parsed : Json(value);
  }
  return options;
}

std::string OptionNote(const arch::OptionSpec& option) {
  std::string text = "option " + option.name + " (" + option.type;
  for (const std::string& choice : option.choices) text += " " + choice;
  return text + ", default " + option.default_value.dump() + "): " + option.help;
}

int Show(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const arch::Architecture* architecture, arch::FindArchitecture(options.name));
  ALLO_ASSIGN_OR_FAIL(const Json given, ParseOptions(options.options));
  const auto span = arch::LengthsForSpanCorruption(options.input_length, 0.15, 3.0);
  ALLO_ASSIGN_OR_FAIL(
      const Json complete,
      arch::CompleteOptions(*architecture, arch::WithRecipeLengths(*architecture, given, {span.inputs, span.targets})));
  common::Table table;
  table.name = "sizes";
  table.columns = {{"size", "size", "", ColumnKind::kText},
                   {"layers", "layers", "", ColumnKind::kInteger},
                   {"d_model", "d_model", "", ColumnKind::kInteger},
                   {"parameters", "params", "", ColumnKind::kQuantity},
                   {"non_embedding_parameters", "non-emb", "", ColumnKind::kQuantity},
                   {"active_parameters", "active", "", ColumnKind::kQuantity},
                   {"forward_flops", "FLOPs/ex", "", ColumnKind::kQuantity},
                   {"forward_flops_without_head", "no head", "", ColumnKind::kQuantity},
                   {"mtf_multiply_adds", "mtf", "", ColumnKind::kQuantity},
                   {"problem", "problem", "", ColumnKind::kText}};
  for (const arch::Size& size : arch::Sizes()) {
    arch::Shape shape = size.shape;
    if (options.vocabulary > 0) shape.vocabulary = options.vocabulary;
    std::vector<TableValue> row{std::string(size.name), shape.encoder_layers, shape.d_model};
    if (const auto fits = architecture->CheckShape(shape, complete); !fits) {
      row.resize(table.columns.size() - 1);
      row.emplace_back(fits.error().message);
    } else {
      const auto parameters = architecture->CountParameters(shape, complete);
      const auto flops = architecture->CountFlops(shape, complete, {span.inputs, span.targets});
      row.insert(row.end(), {parameters.total, parameters.non_embedding, parameters.active, flops.forward,
                             flops.forward_without_head, flops.mtf_multiply_adds, TableValue()});
    }
    table.rows.push_back(std::move(row));
  }
  table.notes.push_back(std::string(architecture->name()) + ": " + std::string(architecture->paper()) +
                        "; FLOPs of one example of " + std::to_string(span.inputs) + " input and " +
                        std::to_string(span.targets) + " target tokens");
  for (const arch::OptionSpec& option : architecture->options()) table.notes.push_back(OptionNote(option));
  Json json = common::TableToJson(table);
  json["architecture"] = options.name;
  json["options"] = complete;
  Print(table, json, options.output);
  return kExitOk;
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("arch", "List architectures, or show one with parameters and FLOPs");
  verb->require_subcommand(1);
  CLI::App* list = verb->add_subcommand("list", "List architectures");
  AddOutputOptions(list, &options->output);
  OnRun(list, [options] { return ListArchitectures(*options); });
  CLI::App* show = verb->add_subcommand("show", "Show an architecture at every size of the grid");
  show->add_option("name", options->name, "Name of the architecture")->required();
  show->add_option("--vocabulary", options->vocabulary, "Rows of the embedding (default: 32128)")
      ->check(CLI::Range(2, 1 << 24));
  show->add_option("--input-length", options->input_length, "Input tokens of an example")
      ->check(CLI::Range(8, 1 << 20))
      ->capture_default_str();
  show->add_option("--option", options->options, "name=value; may be repeated");
  AddOutputOptions(show, &options->output);
  OnRun(show, [options] { return Show(*options); });
}

const VerbRegistration kArch(125, Declare);

}  // namespace
}  // namespace allometry::cli
