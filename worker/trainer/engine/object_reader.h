#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/result.h"

namespace allometry::trainer {

// Takes the members of a JSON object one by one, each checked for type and range, and remembers the first mistake. A
// member that nobody asked for is a mistake too, answered with the nearest name. Not thread-safe.
//   ObjectReader reader(json, "run.optimizer");
//   rate = reader.Number("learning_rate", 0.01, 0.0, 10.0);
//   ALLO_RETURN_IF_ERROR(reader.Finish());
class ObjectReader {
 public:
  // `value` must outlive the reader; `where` is its path from the top of the file, for messages.
  ObjectReader(const common::Json& value, std::string where);

  // Without a fallback the member is required. Limits are inclusive. After a mistake the fallback or a zero comes back.
  int64_t Integer(const std::string& key, std::optional<int64_t> fallback, int64_t minimum, int64_t maximum);
  double Number(const std::string& key, std::optional<double> fallback, double minimum, double maximum);
  bool Boolean(const std::string& key, std::optional<bool> fallback);
  std::string String(const std::string& key, std::optional<std::string> fallback);
  std::string Choice(const std::string& key, std::optional<std::string> fallback,
                     const std::vector<std::string>& choices);
  // The member as it is; null if absent. `type_name` is "object", "array" or "" for any.
  const common::Json& Raw(const std::string& key, bool required, std::string_view type_name);

  bool Has(const std::string& key) const { return value_.is_object() && value_.contains(key); }
  // Allows a member without reading it.
  void Ignore(const std::string& key) { known_.insert(key); }
  std::string PathOf(const std::string& key) const { return where_.empty() ? key : where_ + "." + key; }
  // The first mistake, or an unknown member, as kInvalidArgument.
  common::Status Finish();

 private:
  const common::Json* Find(const std::string& key, bool required);
  void Fail(const std::string& message);

  const common::Json& value_;
  std::string where_;
  std::set<std::string> known_;
  std::optional<std::string> mistake_;
};

}  // namespace allometry::trainer
