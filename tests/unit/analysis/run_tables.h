#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "analysis/law_forms.h"

// Published run tables, which are not part of the project: ALLOMETRY_SHARED_DATA names a folder with runs/ in it.
namespace allometry::analysis {

inline std::filesystem::path RunTable(const char* name) {
  const char* folder = std::getenv("ALLOMETRY_SHARED_DATA");
  return (folder ? std::filesystem::path(folder)
                 : std::filesystem::path(ALLOMETRY_SOURCE_DIR) / ".." / "shared" / "data") /
         "runs" / name;
}

using RunRow = std::map<std::string, std::string>;

// A CSV without quoted fields.
inline std::vector<RunRow> ReadRuns(const std::filesystem::path& path) {
  const auto split = [](const std::string& line) {
    std::vector<std::string> fields;
    std::istringstream in(line);
    for (std::string field; std::getline(in, field, ',');) fields.push_back(field);
    return fields;
  };
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  const std::vector<std::string> names = split(line);
  std::vector<RunRow> rows;
  while (std::getline(in, line)) {
    const std::vector<std::string> fields = split(line);
    rows.emplace_back();
    for (size_t i = 0; i < std::min(names.size(), fields.size()); ++i) rows.back()[names[i]] = fields[i];
  }
  return rows;
}

// As Besiroglu et al. 2024 took them: D = FLOP/(6N), without the five highest losses.
inline std::vector<LawPoint> ChinchillaPoints() {
  std::vector<LawPoint> points;
  for (const RunRow& row : ReadRuns(RunTable("chinchilla_fig4.csv"))) {
    const double n = std::stod(row.at("Model Size"));
    points.push_back({n, std::stod(row.at("Training FLOP")) / 6 / n, std::stod(row.at("loss"))});
  }
  std::ranges::stable_sort(points, {}, &LawPoint::y);
  points.resize(points.size() - 5);
  return points;
}

}  // namespace allometry::analysis
