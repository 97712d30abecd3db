#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/result.h"
#include "worker/trainer/tasks/task_lines.h"

namespace allometry::trainer {

// A JSON object of a task file, and where it stands: what is asked of it and is not there, or is of another type, is
// kDataLoss with the place. Members that nobody asks for are ignored. The JSON value must outlive it.
class JsonRow {
 public:
  JsonRow(const common::Json& value, std::string place) : value_(&value), place_(std::move(place)) {}

  bool Has(const char* key) const { return value_->is_object() && value_->contains(key); }
  common::Result<std::string> Text(const char* key) const;
  common::Result<int64_t> Integer(const char* key) const;
  common::Result<bool> Truth(const char* key) const;      // true or false, or 1 or 0
  common::Result<std::string> Id(const char* key) const;  // a text or a whole number, as text
  common::Result<JsonRow> Object(const char* key) const;
  common::Result<std::vector<JsonRow>> Objects(const char* key) const;    // a list of objects
  common::Result<std::vector<std::string>> Texts(const char* key) const;  // a list of texts
  const common::Json* Find(const char* key) const;                        // null if it is not there

  const std::string& place() const { return place_; }
  common::Error Wrong(const std::string& what) const { return common::DataLoss(place_ + ": " + what); }

 private:
  // The member, of the type that `is` tells; `type` names it in the message.
  common::Result<const common::Json*> Member(const char* key, bool (common::Json::*is)() const noexcept,
                                             const char* type) const;

  const common::Json* value_;
  std::string place_;
};

// Parses JSON of a task file. kDataLoss: "<place>: not valid JSON: …".
common::Result<common::Json> ParseTaskJson(std::string_view text, const std::string& place);

// Hands over a file of JSON lines row by row, each an object; an error ends it, unless it is a bad row's (kDataLoss)
// that is passed over. Counts blank lines and bad rows.
using JsonRowFunction = std::function<common::Status(const JsonRow& row)>;
common::Status ReadJsonLines(const TaskFiles& files, std::string_view task, std::string_view file, BadRows bad_rows,
                             const std::string& split, std::map<std::string, int64_t>* counts,
                             const JsonRowFunction& function);

}  // namespace allometry::trainer
