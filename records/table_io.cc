#include "records/table_io.h"

#include <functional>
#include <set>

#include "common/table.h"

namespace allometry::records {
namespace {

using common::Json;

double NumberFrom(const Json& json) {
  if (const auto number = common::NumberFromJson(json)) return *number;
  if (json.is_string()) throw std::invalid_argument("'" + json.get<std::string>() + "' is not a number");
  return json.get<double>();  // throws, and says what it is
}

Json OrNull(const std::optional<double>& value) { return value ? common::JsonNumber(*value) : Json(nullptr); }

Json NumbersToJson(const std::map<std::string, double>& numbers) {
  Json json = Json::object();
  for (const auto& [name, value] : numbers) json[name] = common::JsonNumber(value);
  return json;
}

std::map<std::string, double> NumbersFrom(const Json& json, const char* key) {
  std::map<std::string, double> numbers;
  const Json object = json.value(key, Json::object());
  for (const auto& [name, value] : object.items()) numbers[name] = NumberFrom(value);
  return numbers;
}

Json ScoreToJson(const Score& score) {
  return {{"value", common::JsonNumber(score.value)},
          {"standard_error", OrNull(score.standard_error)},
          {"majority", OrNull(score.majority)},
          {"examples", score.examples},
          {"at_chance", score.at_chance},
          {"benchmark", score.benchmark},
          {"in_average", score.in_average},
          {"metrics", NumbersToJson(score.metrics)},
          {"standard_errors", NumbersToJson(score.standard_errors)},
          {"unparsed", score.unparsed},
          {"decoding", score.decoding},
          {"split", score.split},
          {"selected_on_test", score.selected_on_test}};
}

std::optional<double> OptionalFrom(const Json& object, const char* key) {
  if (!object.contains(key) || object.at(key).is_null()) return std::nullopt;
  return NumberFrom(object.at(key));
}

Score ScoreFromJson(const Json& json) {
  return {.value = NumberFrom(json.at("value")),
          .standard_error = OptionalFrom(json, "standard_error"),
          .majority = OptionalFrom(json, "majority"),
          .examples = json.value("examples", int64_t{0}),
          .at_chance = json.value("at_chance", false),
          .benchmark = json.value("benchmark", ""),
          .in_average = json.value("in_average", true),
          .metrics = NumbersFrom(json, "metrics"),
          .standard_errors = NumbersFrom(json, "standard_errors"),
          .unparsed = json.value("unparsed", int64_t{0}),
          .decoding = json.value("decoding", ""),
          .split = json.value("split", ""),
          .selected_on_test = json.value("selected_on_test", false)};
}

void ReadState(const Json& json, const char* key, CellState* state) {
  auto parsed = ParseCellState(json.at(key).get<std::string>());
  if (!parsed) throw std::invalid_argument(parsed.error().message);
  *state = *parsed;
}

Record FromJson(const Json& json) {
  Record r;
  for (auto [key, field] : {std::pair{"sweep", &r.sweep},
                            {"cell", &r.cell},
                            {"architecture", &r.architecture},
                            {"size", &r.size},
                            {"shape", &r.shape},
                            {"reason", &r.reason},
                            {"finetune_reason", &r.finetune_reason},
                            {"device", &r.device}}) {
    *field = json.value(key, std::string());
  }
  r.seed = json.value("seed", uint64_t{0});
  if (json.contains("state")) ReadState(json, "state", &r.state);
  if (json.contains("finetune_state") && !json["finetune_state"].is_null())
    ReadState(json, "finetune_state", &r.finetune_state.emplace());
  r.metrics = NumbersFrom(json, "metrics");
  const Json scores = json.value("scores", Json::object());
  for (const auto& [task, value] : scores.items()) r.scores[task] = ScoreFromJson(value);
  r.tags = json.value("tags", std::map<std::string, std::string>());
  if (json.contains("excluded") && !json["excluded"].is_null()) r.excluded = json["excluded"].get<std::string>();
  return r;
}

std::string StateText(const std::optional<CellState>& state) { return state ? CellStateName(*state) : ""; }

// A column: its name and how a record fills it.
struct CsvColumn {
  std::string name;
  std::function<std::string(const Record&)> text;
};

std::vector<CsvColumn> FixedColumns() {
  return {{"sweep", [](const Record& r) { return r.sweep; }},
          {"cell", [](const Record& r) { return r.cell; }},
          {"architecture", [](const Record& r) { return r.architecture; }},
          {"size", [](const Record& r) { return r.size; }},
          {"shape", [](const Record& r) { return r.shape; }},
          {"seed", [](const Record& r) { return std::to_string(r.seed); }},
          {"state", [](const Record& r) { return std::string(CellStateName(r.state)); }},
          {"reason", [](const Record& r) { return r.reason; }},
          {"finetune_state", [](const Record& r) { return StateText(r.finetune_state); }},
          {"finetune_reason", [](const Record& r) { return r.finetune_reason; }},
          {"device", [](const Record& r) { return r.device; }},
          {"excluded", [](const Record& r) { return r.excluded.value_or(""); }}};
}

template <typename Map>
const typename Map::mapped_type* Find(const Map& map, const std::string& key) {
  const auto it = map.find(key);
  return it == map.end() ? nullptr : &it->second;
}

void AddTaskColumns(const std::string& task, std::vector<CsvColumn>* columns) {
  const auto add = [&](const char* part, std::function<std::string(const Score&)> text) {
    columns->push_back({task + "." + part, [task, text](const Record& r) {
                          const Score* score = Find(r.scores, task);
                          return score ? text(*score) : std::string();
                        }});
  };
  add("value", [](const Score& s) { return common::ShortestDouble(s.value); });
  const auto known = [](const std::optional<double>& v) { return v ? common::ShortestDouble(*v) : std::string(); };
  add("standard_error", [known](const Score& s) { return known(s.standard_error); });
  add("majority", [known](const Score& s) { return known(s.majority); });
  add("examples", [](const Score& s) { return std::to_string(s.examples); });
  add("at_chance", [](const Score& s) { return std::string(s.at_chance ? "true" : "false"); });
}

std::vector<CsvColumn> ColumnsOf(const Table& table) {
  std::set<std::string> metrics, tasks, tags;
  for (const Record& record : table) {
    for (const auto& [name, value] : record.metrics) metrics.insert(name);
    for (const auto& [task, score] : record.scores) tasks.insert(task);
    for (const auto& [tag, value] : record.tags) tags.insert(tag);
  }
  std::vector<CsvColumn> columns = FixedColumns();
  for (const std::string& name : metrics) {
    columns.push_back({name, [name](const Record& r) {
                         const double* value = Find(r.metrics, name);
                         return value ? common::ShortestDouble(*value) : std::string();
                       }});
  }
  for (const std::string& task : tasks) AddTaskColumns(task, &columns);
  for (const std::string& tag : tags) {
    columns.push_back({"tag." + tag, [tag](const Record& r) {
                         const std::string* value = Find(r.tags, tag);
                         return value ? *value : std::string();
                       }});
  }
  return columns;
}

}  // namespace

common::Json RecordToJson(const Record& record) {
  Json json = {{"sweep", record.sweep},
               {"cell", record.cell},
               {"architecture", record.architecture},
               {"size", record.size},
               {"shape", record.shape},
               {"seed", record.seed},
               {"state", CellStateName(record.state)},
               {"reason", record.reason},
               {"finetune_state", nullptr},
               {"finetune_reason", record.finetune_reason},
               {"device", record.device},
               {"scores", Json::object()},
               {"tags", record.tags},
               {"excluded", nullptr}};
  if (record.finetune_state) json["finetune_state"] = CellStateName(*record.finetune_state);
  if (record.excluded) json["excluded"] = *record.excluded;
  json["metrics"] = NumbersToJson(record.metrics);
  for (const auto& [task, score] : record.scores) json["scores"][task] = ScoreToJson(score);
  return json;
}

common::Result<Record> RecordFromJson(const common::Json& json, const std::string& where) {
  if (!json.is_object()) return common::InvalidArgument(where + ": a record is a JSON object");
  try {
    return FromJson(json);
  } catch (const std::exception& error) {  // nlohmann's own type errors, and the ones above
    return common::InvalidArgument(where + ": " + error.what());
  }
}

void WriteJsonLines(const Table& table, std::ostream& out) {
  for (const Record& record : table) out << RecordToJson(record).dump() << "\n";
}

common::Result<Table> ReadJsonLines(std::istream& in, const std::string& where) {
  Table table;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string place = where + ":" + std::to_string(number);
    ALLO_ASSIGN_OR_RETURN(common::Json json, common::ParseJson(line, place));
    ALLO_ASSIGN_OR_RETURN(Record record, RecordFromJson(json, place));
    table.push_back(std::move(record));
  }
  return table;
}

void WriteCsv(const Table& table, std::ostream& out) {
  const std::vector<CsvColumn> columns = ColumnsOf(table);
  for (size_t c = 0; c < columns.size(); ++c) out << (c ? "," : "") << common::CsvField(columns[c].name);
  out << "\n";
  for (const Record& record : table) {
    for (size_t c = 0; c < columns.size(); ++c) out << (c ? "," : "") << common::CsvField(columns[c].text(record));
    out << "\n";
  }
}

}  // namespace allometry::records
