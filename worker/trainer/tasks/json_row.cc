#include "worker/trainer/tasks/json_row.h"

#include <algorithm>

namespace allometry::trainer {

using common::Json;

namespace {

void Erase(std::string* text, std::string_view part) {
  if (const size_t at = text->find(part); at != text->npos) text->erase(at, part.size());
}

// A row is one line: that the mistake is in the row's line 1 would read as if it were the file's.
common::Error WithoutRowsLine(common::Error error) {
  Erase(&error.message, "line 1, ");
  return error;
}

}  // namespace

const Json* JsonRow::Find(const char* key) const {
  if (!value_->is_object()) return nullptr;
  const auto found = value_->find(key);
  return found == value_->end() ? nullptr : &*found;
}

common::Result<const Json*> JsonRow::Member(const char* key, bool (Json::*is)() const noexcept,
                                            const char* type) const {
  const Json* member = Find(key);
  if (!member) return Wrong(std::string("there is no '") + key + "'");
  if (!(member->*is)()) return Wrong(std::string("'") + key + "' should be " + type);
  return member;
}

common::Result<std::string> JsonRow::Text(const char* key) const {
  ALLO_ASSIGN_OR_RETURN(const Json* member, Member(key, &Json::is_string, "a text"));
  return member->get<std::string>();
}

common::Result<int64_t> JsonRow::Integer(const char* key) const {
  ALLO_ASSIGN_OR_RETURN(const Json* member, Member(key, &Json::is_number_integer, "a whole number"));
  return member->get<int64_t>();
}

common::Result<bool> JsonRow::Truth(const char* key) const {
  const Json* member = Find(key);
  if (member && member->is_boolean()) return member->get<bool>();
  if (member && member->is_number_integer() && (*member == 0 || *member == 1)) return *member == 1;
  return Wrong(std::string("'") + key + "' should be there and true or false");
}

common::Result<std::string> JsonRow::Id(const char* key) const {
  const Json* member = Find(key);
  if (member && member->is_string()) return member->get<std::string>();
  if (member && member->is_number_integer()) return member->dump();
  return Wrong(std::string("'") + key + "' should be there and a text or a whole number");
}

common::Result<JsonRow> JsonRow::Object(const char* key) const {
  ALLO_ASSIGN_OR_RETURN(const Json* member, Member(key, &Json::is_object, "an object"));
  return JsonRow(*member, place_ + ": " + key);
}

common::Result<std::vector<JsonRow>> JsonRow::Objects(const char* key) const {
  ALLO_ASSIGN_OR_RETURN(const Json* member, Member(key, &Json::is_array, "a list"));
  std::vector<JsonRow> rows;
  for (size_t i = 0; i < member->size(); ++i) {
    rows.emplace_back((*member)[i], place_ + ": " + key + "[" + std::to_string(i) + "]");
    if (!(*member)[i].is_object()) return rows.back().Wrong("should be an object");
  }
  return rows;
}

common::Result<std::vector<std::string>> JsonRow::Texts(const char* key) const {
  ALLO_ASSIGN_OR_RETURN(const Json* member, Member(key, &Json::is_array, "a list of texts"));
  std::vector<std::string> texts;
  for (const Json& item : *member) {
    if (!item.is_string()) return Wrong(std::string("'") + key + "' should be a list of texts");
    texts.push_back(item.get<std::string>());
  }
  return texts;
}

common::Result<Json> ParseTaskJson(std::string_view text, const std::string& place) {
  auto parsed = common::ParseJson(text, place);
  if (parsed) return parsed;
  // The parser quotes what it read last, which can be a whole passage, and names itself.
  std::string message = parsed.error().message;
  message.resize(std::min(message.size(), message.find("; last read")));
  Erase(&message, "[json.exception.parse_error.101] parse error at ");
  return common::DataLoss(std::move(message));
}

namespace {

// Parses a line and hands it over.
common::Status ReadRow(const std::string& line, const std::string& place, const JsonRowFunction& function) {
  const auto json = ParseTaskJson(line, place);
  if (!json) return WithoutRowsLine(json.error());
  const JsonRow row(*json, place);
  return json->is_object() ? function(row) : row.Wrong("should be a JSON object");
}

}  // namespace

common::Status ReadJsonLines(const TaskFiles& files, std::string_view task, std::string_view file, BadRows bad_rows,
                             const std::string& split, std::map<std::string, int64_t>* counts,
                             const JsonRowFunction& function) {
  ALLO_ASSIGN_OR_RETURN(TaskLines lines, TaskLines::Open(files, task, file, bad_rows));
  std::string line;
  for (;;) {
    ALLO_ASSIGN_OR_RETURN(const bool more, lines.Next(&line));
    if (!more) break;
    const common::Status read = ReadRow(line, lines.Place(), function);
    if (!read.ok()) ALLO_RETURN_IF_ERROR(lines.Bad(read.error()));
  }
  lines.AddCounts(split, counts);
  return common::Ok();
}

}  // namespace allometry::trainer
