#include "common/json.h"

#include <charconv>
#include <cmath>
#include <stdexcept>

#include "common/files.h"

namespace allometry::common {

Result<Json> ParseJson(std::string_view text, std::string_view where) {
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& e) {
    return InvalidArgument(std::string(where) + ": not valid JSON: " + e.what());
  }
}

Result<Json> ReadJsonFile(const std::filesystem::path& path) {
  ALLO_ASSIGN_OR_RETURN(std::string text, ReadFile(path));
  return ParseJson(text, path.string());
}

namespace {

void AppendDouble(double v, std::string* out) {
  if (!std::isfinite(v)) throw std::invalid_argument("NaN and infinity have no canonical JSON form");
  char buffer[40];
  auto [end, ec] = std::to_chars(buffer, buffer + sizeof buffer, v);
  out->append(buffer, end);
}

void Append(const Json& v, std::string* out) {
  if (v.is_object()) {  // nlohmann's default object is a std::map: keys come sorted
    *out += '{';
    const char* separator = "";
    for (const auto& [key, item] : v.items()) {
      *out += separator;
      *out += Json(key).dump();
      *out += ':';
      Append(item, out);
      separator = ",";
    }
    *out += '}';
  } else if (v.is_array()) {
    *out += '[';
    const char* separator = "";
    for (const auto& item : v) {
      *out += separator;
      Append(item, out);
      separator = ",";
    }
    *out += ']';
  } else if (v.is_number_float()) {
    AppendDouble(v.get<double>(), out);
  } else {
    *out += v.dump();
  }
}

}  // namespace

std::string CanonicalJson(const Json& value) {
  std::string out;
  Append(value, &out);
  return out;
}

}  // namespace allometry::common
