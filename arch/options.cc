#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "arch/architecture.h"
#include "common/ids.h"

namespace allometry::arch {
namespace {

using common::Json;

std::string Allowed(const OptionSpec& spec) {
  if (spec.type == "boolean") return "true or false";
  if (spec.type != "choice")
    return "a" + std::string(spec.type == "integer" ? "n integer" : " number") + " from " + Json(spec.minimum).dump() +
           " to " + Json(spec.maximum).dump();
  std::string text = "one of";
  for (const std::string& choice : spec.choices) text += ' ' + choice;
  return text;
}

bool InRange(const OptionSpec& spec, double value) { return value >= spec.minimum && value <= spec.maximum; }

// The value in the option's own type (an integer written as 2.0 or 2e3 becomes one), or null when it does not fit.
Json Fit(const OptionSpec& spec, const Json& value) {
  if (spec.type == "boolean") return value.is_boolean() ? value : Json();
  if (spec.type == "choice") {
    const bool known = value.is_string() && std::ranges::count(spec.choices, value.get<std::string>()) > 0;
    return known ? value : Json();
  }
  if (!value.is_number() || !InRange(spec, value.get<double>())) return Json();
  if (spec.type == "number") return value.get<double>();
  const double number = value.get<double>();
  return number == std::floor(number) ? Json(static_cast<int64_t>(number)) : Json();
}

common::Error UnknownOption(const Architecture& architecture, const std::string& name) {
  std::vector<std::string> names;
  for (const OptionSpec& spec : architecture.options()) names.push_back(spec.name);
  std::string message = std::string(architecture.name()) + " has no option '" + name + "'";
  if (names.empty()) return common::InvalidArgument(message + "; it takes none");
  message += "; it has";
  for (const std::string& known : names) message += ' ' + known;
  const std::string near = common::NearestName(name, names);
  if (!near.empty()) message += "; did you mean '" + near + "'?";
  return common::InvalidArgument(message);
}

}  // namespace

Lengths Architecture::LongestLengths(const Json&) const {
  return {std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::max()};
}

Json WithRecipeLengths(const Architecture& architecture, const Json& given, Lengths recipe) {
  if (!given.is_null() && !given.is_object()) return given;  // CompleteOptions says what is wrong with it
  Json options = given.is_null() ? Json::object() : given;
  for (const auto& [name, length] : {std::pair("input_length", recipe.inputs), {"target_length", recipe.targets}})
    if (std::ranges::count(architecture.options(), name, &OptionSpec::name) > 0 && !options.contains(name))
      options[name] = length;
  return options;
}

common::Result<Json> CompleteOptions(const Architecture& architecture, const Json& given) {
  if (!given.is_null() && !given.is_object())
    return common::InvalidArgument(std::string(architecture.name()) + ": options are a map of names to values");
  Json complete = Json::object();
  for (const OptionSpec& spec : architecture.options()) complete[spec.name] = spec.default_value;
  if (given.is_null()) return complete;
  for (const auto& [name, value] : given.items()) {
    const auto specs = architecture.options();
    const auto spec = std::ranges::find(specs, name, &OptionSpec::name);
    if (spec == specs.end()) return UnknownOption(architecture, name);
    const Json fitted = Fit(*spec, value);
    if (fitted.is_null())
      return common::InvalidArgument(std::string(architecture.name()) + ": option " + name + " is " + value.dump() +
                                     "; allowed: " + Allowed(*spec));
    complete[name] = fitted;
  }
  return complete;
}

}  // namespace allometry::arch
