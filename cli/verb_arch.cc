#include <memory>

#include "arch/architecture.h"
#include "arch/objective.h"
#include "cli/output.h"
#include "cli/verb.h"

namespace allometry::cli::verb_arch {
namespace {

using common::ColumnKind;
using common::Json;
using common::TableValue;

struct Options {
  std::string name;
  std::string size;
  int64_t vocabulary = 0;
  int64_t input_length = 512;
  int64_t batch_sequences = 128;
  int64_t micro_batch = 0;
  std::string precision = "fp32";
  std::string optimizer = "adafactor";
  std::vector<std::string> options;
  OutputOptions output;
};

// What one architecture costs at one size; `problem` says why it cannot take the size.
struct SizeCosts {
  arch::ParameterCount parameters;
  arch::FlopCount flops;
  double training_flops_per_step = 0;
  arch::MemoryEstimate memory;
  std::string problem;
};

arch::Lengths LengthsOf(const Options& options) {
  const arch::ObjectiveLengths lengths = arch::LengthsOf({.input_length = options.input_length});
  return {lengths.inputs, lengths.targets};
}

// Examples at a time: the whole batch unless --micro-batch says otherwise.
int64_t MicroBatchOf(const Options& options) {
  return options.micro_batch > 0 ? options.micro_batch : options.batch_sequences;
}

common::Result<Json> Complete(const arch::Architecture& architecture, const Json& given, arch::Lengths lengths) {
  return arch::CompleteOptions(architecture, arch::WithRecipeLengths(architecture, given, lengths));
}

arch::Shape WithVocabulary(arch::Shape shape, const Options& options) {
  if (options.vocabulary > 0) shape.vocabulary = options.vocabulary;
  return shape;
}

common::Result<arch::Shape> ShapeOf(const Options& options) {
  ALLO_ASSIGN_OR_RETURN(const arch::Shape shape, arch::FindSize(options.size));
  return WithVocabulary(shape, options);
}

SizeCosts CostsOf(const arch::Architecture& architecture, const arch::Shape& shape, const Json& complete,
                  const Options& options) {
  SizeCosts costs;
  if (const auto fits = architecture.CheckShape(shape, complete); !fits) {
    costs.problem = fits.error().message;
    return costs;
  }
  const arch::Lengths lengths = LengthsOf(options);
  costs.parameters = architecture.CountParameters(shape, complete);
  costs.flops = architecture.CountFlops(shape, complete, lengths);
  costs.training_flops_per_step =
      3.0 * static_cast<double>(costs.flops.forward) * static_cast<double>(options.batch_sequences);
  costs.memory = architecture.EstimateMemory(shape, complete,
                                             {lengths, MicroBatchOf(options), options.precision, options.optimizer});
  return costs;
}

std::string StepNote(const Options& options) {
  const arch::Lengths lengths = LengthsOf(options);
  return "a step is " + std::to_string(options.batch_sequences) + " examples of " + std::to_string(lengths.inputs) +
         " input and " + std::to_string(lengths.targets) + " target tokens; memory in bytes: " + options.precision +
         ", " + options.optimizer + ", " + std::to_string(MicroBatchOf(options)) + " examples at a time";
}

// Every architecture at one size, side by side.
int CompareAt(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const arch::Shape shape, ShapeOf(options));
  common::Table table;
  table.name = "architectures";
  table.columns = {{"architecture", "architecture", "", ColumnKind::kText},
                   {"parameters", "params", "", ColumnKind::kQuantity},
                   {"non_embedding_parameters", "non-emb", "", ColumnKind::kQuantity},
                   {"active_parameters", "active", "", ColumnKind::kQuantity},
                   {"forward_flops", "FLOPs/ex", "", ColumnKind::kQuantity},
                   {"training_flops_per_step", "FLOPs/step", "", ColumnKind::kQuantity},
                   {"mtf_multiply_adds", "mtf", "", ColumnKind::kQuantity},
                   {"memory_bytes", "memory", "bytes", ColumnKind::kQuantity}};
  for (const arch::Architecture* architecture : arch::Architectures()) {
    ALLO_ASSIGN_OR_FAIL(const Json complete, Complete(*architecture, Json::object(), LengthsOf(options)));
    const SizeCosts costs = CostsOf(*architecture, shape, complete, options);
    std::vector<TableValue> row{std::string(architecture->name())};
    if (costs.problem.empty())
      row.insert(row.end(),
                 {costs.parameters.total, costs.parameters.non_embedding, costs.parameters.active, costs.flops.forward,
                  costs.training_flops_per_step, costs.flops.mtf_multiply_adds, costs.memory.total()});
    else
      table.notes.push_back(costs.problem);
    row.resize(table.columns.size());
    table.rows.push_back(std::move(row));
  }
  table.notes.push_back(options.size + "; " + StepNote(options));
  Json json = common::TableToJson(table);
  json["size"] = options.size;
  Print(table, json, options.output);
  return kExitOk;
}

int ListArchitectures(const Options& options) {
  if (!options.size.empty()) return CompareAt(options);
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

// One architecture at one size, a quantity a line; in JSON one flat object.
int ShowSize(const arch::Architecture& architecture, const Json& complete, const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const arch::Shape shape, ShapeOf(options));
  const SizeCosts costs = CostsOf(architecture, shape, complete, options);
  if (!costs.problem.empty()) return Fail(common::InvalidArgument(costs.problem));
  struct Quantity {
    const char* key;
    TableValue value;
    const char* of;
  };
  const arch::MemoryEstimate& memory = costs.memory;
  const Quantity quantities[] = {
      {"parameters", costs.parameters.total, "all"},
      {"non_embedding_parameters", costs.parameters.non_embedding, "without the vocabulary's tables"},
      {"active_parameters", costs.parameters.active, "used by one token"},
      {"forward_flops", costs.flops.forward, "one example, forward"},
      {"forward_flops_without_head", costs.flops.forward_without_head, "without the product with the vocabulary"},
      {"mtf_multiply_adds", costs.flops.mtf_multiply_adds, "as Mesh TensorFlow counts: 128 examples"},
      {"training_flops_per_step", costs.training_flops_per_step, "3 x forward x examples"},
      {"memory_bytes", memory.total(), "peak of training on a CPU"},
      {"weights_bytes", memory.weights_bytes, "of it; bf16 with float32 masters"},
      {"gradients_bytes", memory.gradients_bytes, ""},
      {"optimizer_bytes", memory.optimizer_bytes, "moments"},
      {"activations_bytes", memory.activations_bytes, "kept for the backward pass"},
      {"workspace_bytes", memory.workspace_bytes, "of the hungriest layer's backward pass"},
      {"process_bytes", memory.process_bytes, "the program without a model; not on a GPU"},
  };
  common::Table table;
  table.name = "quantities";
  table.columns = {{"quantity", "quantity", "", ColumnKind::kText},
                   {"value", "value", "", ColumnKind::kQuantity},
                   {"of", "", "", ColumnKind::kText}};
  Json json = {{"architecture", options.name}, {"size", options.size}, {"options", complete}};
  json["shape"] = {{"encoder_layers", shape.encoder_layers},
                   {"decoder_layers", shape.decoder_layers},
                   {"d_model", shape.d_model},
                   {"d_ff", shape.d_ff},
                   {"heads", shape.heads},
                   {"d_kv", shape.d_kv},
                   {"vocabulary", shape.vocabulary}};
  for (const Quantity& quantity : quantities) {
    table.rows.push_back({std::string(quantity.key), quantity.value, std::string(quantity.of)});
    std::visit(
        [&](const auto& value) {
          if constexpr (std::is_arithmetic_v<std::decay_t<decltype(value)>>) json[quantity.key] = value;
        },
        quantity.value);
  }
  table.notes.push_back(options.name + " at " + options.size + "; " + StepNote(options));
  Print(table, json, options.output);
  return kExitOk;
}

int Show(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const arch::Architecture* architecture, arch::FindArchitecture(options.name));
  ALLO_ASSIGN_OR_FAIL(const Json given, ParseOptions(options.options));
  const arch::Lengths span = LengthsOf(options);
  ALLO_ASSIGN_OR_FAIL(const Json complete, Complete(*architecture, given, span));
  if (!options.size.empty()) return ShowSize(*architecture, complete, options);
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
    const arch::Shape shape = WithVocabulary(size.shape, options);
    const SizeCosts costs = CostsOf(*architecture, shape, complete, options);
    std::vector<TableValue> row{std::string(size.name), shape.encoder_layers, shape.d_model};
    if (costs.problem.empty())
      row.insert(row.end(), {costs.parameters.total, costs.parameters.non_embedding, costs.parameters.active,
                             costs.flops.forward, costs.flops.forward_without_head, costs.flops.mtf_multiply_adds});
    row.resize(table.columns.size() - 1);
    row.push_back(OrNone(costs.problem));
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

void AddCostOptions(CLI::App* verb, Options* options, const char* size_help) {
  verb->add_option("--size", options->size, size_help);
  verb->add_option("--vocabulary", options->vocabulary, "Rows of the embedding (default: 32128)")
      ->check(CLI::Range(2, 1 << 24));
  verb->add_option("--input-length", options->input_length, "Input tokens of an example")
      ->check(CLI::Range(8, 1 << 20))
      ->capture_default_str();
  verb->add_option("--batch", options->batch_sequences, "Examples of a step, with --size")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  verb->add_option("--micro-batch", options->micro_batch, "Examples at a time, with --size (default: the whole batch)")
      ->check(CLI::Range(1, 1 << 24));
  verb->add_option("--precision", options->precision, "fp32 or bf16, with --size")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  verb->add_option("--optimizer", options->optimizer, "adafactor or adamw, with --size")
      ->check(CLI::IsMember({"adafactor", "adamw"}))
      ->capture_default_str();
  AddOutputOptions(verb, &options->output);
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("arch", "List architectures, or show one with parameters and FLOPs");
  verb->require_subcommand(1);
  CLI::App* list = verb->add_subcommand("list", "List architectures");
  AddCostOptions(list, options.get(), "Compare what all cost at this size");
  OnRun(list, [options] { return ListArchitectures(*options); });
  CLI::App* show = verb->add_subcommand("show", "Show an architecture at every size of the grid");
  show->add_option("name", options->name, "Name of the architecture")->required();
  show->add_option("--option", options->options, "name=value; may be repeated");
  AddCostOptions(show, options.get(), "Show all costs at this size alone, memory among them");
  OnRun(show, [options] { return Show(*options); });
}

const VerbRegistration kArch(125, Declare);

}  // namespace
}  // namespace allometry::cli::verb_arch
