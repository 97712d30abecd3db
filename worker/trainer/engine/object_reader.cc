#include "worker/trainer/engine/object_reader.h"

#include <cmath>
#include <sstream>

#include "common/ids.h"

namespace allometry::trainer {
namespace {

const common::Json kNull;

std::string Text(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

std::string Joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

std::string Shown(const common::Json& value) {
  std::string text = value.dump(-1, ' ', false, common::Json::error_handler_t::replace);
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

}  // namespace

ObjectReader::ObjectReader(const common::Json& value, std::string where) : value_(value), where_(std::move(where)) {
  if (!value_.is_object()) Fail((where_.empty() ? "the file" : where_) + " must be an object, not " + Shown(value_));
}

void ObjectReader::Fail(const std::string& message) {
  if (!mistake_) mistake_ = message;
}

const common::Json* ObjectReader::Find(const std::string& key, bool required) {
  known_.insert(key);
  if (Has(key) && !value_[key].is_null()) return &value_[key];
  if (required) Fail(PathOf(key) + " is missing");
  return nullptr;
}

int64_t ObjectReader::Integer(const std::string& key, std::optional<int64_t> fallback, int64_t minimum,
                              int64_t maximum) {
  const common::Json* found = Find(key, !fallback);
  if (!found) return fallback.value_or(0);
  const std::string allowed = " must be an integer from " + std::to_string(minimum) + " to " + std::to_string(maximum);
  const bool whole = found->is_number_integer() || (found->is_number_float() && std::isfinite(found->get<double>()) &&
                                                    std::trunc(found->get<double>()) == found->get<double>() &&
                                                    std::fabs(found->get<double>()) < 9e15);
  if (!whole || found->get<double>() < static_cast<double>(minimum) ||
      found->get<double>() > static_cast<double>(maximum)) {
    Fail(PathOf(key) + allowed + ", not " + Shown(*found));
    return fallback.value_or(0);
  }
  return found->is_number_float() ? static_cast<int64_t>(found->get<double>()) : found->get<int64_t>();
}

double ObjectReader::Number(const std::string& key, std::optional<double> fallback, double minimum, double maximum) {
  const common::Json* found = Find(key, !fallback);
  if (!found) return fallback.value_or(0);
  if (!found->is_number() || !(found->get<double>() >= minimum && found->get<double>() <= maximum)) {
    Fail(PathOf(key) + " must be a number from " + Text(minimum) + " to " + Text(maximum) + ", not " + Shown(*found));
    return fallback.value_or(0);
  }
  return found->get<double>();
}

bool ObjectReader::Boolean(const std::string& key, std::optional<bool> fallback) {
  const common::Json* found = Find(key, !fallback);
  if (!found) return fallback.value_or(false);
  if (found->is_boolean()) return found->get<bool>();
  Fail(PathOf(key) + " must be true or false, not " + Shown(*found));
  return fallback.value_or(false);
}

std::string ObjectReader::String(const std::string& key, std::optional<std::string> fallback) {
  const common::Json* found = Find(key, !fallback);
  if (!found) return fallback.value_or("");
  if (found->is_string()) return found->get<std::string>();
  Fail(PathOf(key) + " must be a string, not " + Shown(*found));
  return fallback.value_or("");
}

std::string ObjectReader::Choice(const std::string& key, std::optional<std::string> fallback,
                                 const std::vector<std::string>& choices) {
  std::string value = String(key, fallback);
  if (mistake_) return value;
  for (const std::string& choice : choices)
    if (value == choice) return value;
  const std::string nearest = common::NearestName(value, choices);
  Fail(PathOf(key) + " is '" + value + "': allowed are " + Joined(choices) +
       (nearest.empty() ? "" : " (did you mean '" + nearest + "'?)"));
  return value;
}

const common::Json& ObjectReader::Raw(const std::string& key, bool required, std::string_view type_name) {
  const common::Json* found = Find(key, required);
  if (!found) return kNull;
  if (!type_name.empty() && found->type_name() != type_name) {
    Fail(PathOf(key) + " must be an " + std::string(type_name) + ", not " + Shown(*found));
    return kNull;
  }
  return *found;
}

common::Status ObjectReader::Finish() {
  if (value_.is_object() && !mistake_) {
    for (const auto& [key, unused] : value_.items()) {
      if (known_.contains(key)) continue;
      const std::string nearest = common::NearestName(key, known_);
      Fail(PathOf(key) + " is unknown; " +
           (nearest.empty() ? "known here: " + Joined({known_.begin(), known_.end()})
                            : "did you mean '" + nearest + "'?"));
      break;
    }
  }
  return mistake_ ? common::Status(common::InvalidArgument(*mistake_)) : common::Ok();
}

}  // namespace allometry::trainer
