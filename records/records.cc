#include "records/records.h"

#include <algorithm>
#include <array>

#include "common/ids.h"

namespace allometry::records {
namespace {

constexpr std::array<const char*, 4> kStateNames = {"done", "failed", "diverged", "unfinished"};
const std::vector<std::string> kFilterKeys = {"architecture", "cell", "seed", "size", "state", "sweep"};
constexpr std::string_view kTagPrefix = "tag.";

std::vector<std::string> SplitAtCommas(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    if (comma > 0) parts.emplace_back(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return parts;
}

common::Status CheckKey(const std::string& key) {
  if (key.starts_with(kTagPrefix) && key.size() > kTagPrefix.size()) return common::Ok();
  if (std::ranges::count(kFilterKeys, key) > 0) return common::Ok();
  const std::string near = common::NearestName(key, kFilterKeys);
  return common::InvalidArgument("filter: unknown key '" + key +
                                 "': use architecture, cell, seed, size, state, sweep or tag.<name>" +
                                 (near.empty() ? "" : " (did you mean '" + near + "'?)"));
}

// The record's value of a filter key; absent for a tag that it does not have.
std::optional<std::string> ValueOf(const Record& record, const std::string& key) {
  if (key == "architecture") return record.architecture;
  if (key == "cell") return record.cell;
  if (key == "seed") return std::to_string(record.seed);
  if (key == "size") return record.size;
  if (key == "state") return CellStateName(record.state);
  if (key == "sweep") return record.sweep;
  const auto tag = record.tags.find(key.substr(kTagPrefix.size()));
  if (tag == record.tags.end()) return std::nullopt;
  return tag->second;
}

}  // namespace

const char* CellStateName(CellState state) { return kStateNames[static_cast<size_t>(state)]; }

common::Result<CellState> ParseCellState(std::string_view name) {
  for (size_t i = 0; i < kStateNames.size(); ++i) {
    if (name == kStateNames[i]) return static_cast<CellState>(i);
  }
  return common::InvalidArgument("unknown state '" + std::string(name) + "': use done, failed, diverged or unfinished");
}

common::Result<Filter> Filter::Parse(std::string_view text) {
  Filter filter;
  for (const std::string& part : SplitAtCommas(text)) {
    const size_t equals = part.find('=');
    if (equals == std::string::npos)
      return common::InvalidArgument("filter: '" + part + "' is not of the form key=value");
    const std::string key = part.substr(0, equals);
    ALLO_RETURN_IF_ERROR(CheckKey(key));
    filter.wanted_[key].push_back(part.substr(equals + 1));
  }
  return filter;
}

bool Filter::Holds(const Record& record) const {
  return std::ranges::all_of(wanted_, [&](const auto& entry) {
    const std::optional<std::string> value = ValueOf(record, entry.first);
    return value && std::ranges::count(entry.second, *value) > 0;
  });
}

View Select(const Table& table, const Filter& filter) {
  View selected;
  for (const Record& record : table) {
    if (filter.Holds(record)) selected.push_back(&record);
  }
  return selected;
}

common::Result<std::unordered_set<const Record*>> FindNamed(const View& records,
                                                            const std::vector<std::string>& names) {
  std::unordered_set<const Record*> found;
  for (const std::string& name : names) {
    bool known = false;
    for (const Record* record : records) {
      if (record->cell != name && record->Name() != name) continue;
      found.insert(record);
      known = true;
    }
    if (known) continue;
    std::vector<std::string> cells;
    for (const Record* record : records) cells.push_back(record->cell);
    const std::string near = common::NearestName(name, cells);
    return common::NotFound("exclude: there is no cell '" + name + "'" +
                            (near.empty() ? "" : " (did you mean '" + near + "'?)"));
  }
  return found;
}

}  // namespace allometry::records
