// Times what a question about 100,000 runs costs, and prints the figures as JSON: slopes with intervals, the Pareto
// frontier with membership probabilities of 10,000 draws, and reading the runs from a coordinator's database.
//
//   bench_tables [--rounds 5] [--out FILE]
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>

#include "analysis/pareto.h"
#include "analysis/slopes.h"
#include "bench/analysis/made_up_study.h"
#include "bench/analysis/measure.h"
#include "common/machine.h"
#include "common/version.h"
#include "records/sqlite.h"

namespace allometry::bench {
namespace {

using common::Json;
namespace fs = std::filesystem;

template <typename T>
T Value(common::Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.error().message);
  return std::move(result).value();
}

// Removes the file and what SQLite keeps beside it.
class TemporaryDatabase {
 public:
  TemporaryDatabase() : folder_(fs::temp_directory_path() / ("bench_tables_" + std::to_string(::getpid()))) {
    fs::create_directories(folder_);
  }
  ~TemporaryDatabase() { fs::remove_all(folder_); }
  fs::path path() const { return folder_ / "runs.db"; }

 private:
  fs::path folder_;
};

Json MeasureAnalysis(const StudyShape& shape, int rounds) {
  const records::Table table = MadeUpTable(shape);
  Json json = {{"runs", table.size()}, {"shape", shape.Name()}, {"tasks", shape.tasks}};
  json["slopes"] = Measure([&] { Value(analysis::Slopes(table, {})); }, rounds);
  json["pareto"] = Measure([&] { Value(analysis::Pareto(table, {})); }, rounds);
  json["together_wall_seconds"] =
      json["slopes"]["wall_seconds"].get<double>() + json["pareto"]["wall_seconds"].get<double>();
  return json;
}

Json MeasureLoading(const StudyShape& shape, int rounds) {
  const TemporaryDatabase database;
  WriteDatabase(MadeUpTable(shape), database.path());
  Json json = {{"runs", shape.runs()}, {"tasks", shape.tasks}};
  json["load"] = Measure([&] { Value(records::LoadSqlite(database.path(), {})); }, rounds);
  return json;
}

std::string Now() {
  char text[32];
  const std::time_t now = std::time(nullptr);
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return text;
}

Json LoadAverage() {
  double load[3] = {};
  return ::getloadavg(load, 3) == 3 ? Json(load) : Json(nullptr);
}

int Run(int rounds, const std::string& out) {
  Json report = {{"bench", "analysis"},
                 {"date", Now()},
                 {"commit", common::kCommit},
                 {"cpu", common::CpuModel()},
                 {"threads", std::thread::hardware_concurrency()},
                 {"load_average", LoadAverage()},
                 {"rounds", rounds},
                 {"goal", {{"together_wall_seconds", 1}}},
                 {"analysis", Json::array()},
                 {"sqlite", Json::array()}};
  for (const int tasks : {0, 2}) {
    for (StudyShape shape : {StudyShape{12, 2083, 4}, StudyShape{1000, 20, 5}}) {
      shape.tasks = tasks;
      report["analysis"].push_back(MeasureAnalysis(shape, rounds));
    }
    report["sqlite"].push_back(MeasureLoading({1000, 20, 5, tasks}, rounds));
  }
  const std::string text = report.dump(2) + "\n";
  if (out.empty()) std::fputs(text.c_str(), stdout);
  if (!out.empty()) std::ofstream(out) << text;
  return 0;
}

}  // namespace
}  // namespace allometry::bench

int main(int argc, char** argv) {
  int rounds = 5;
  std::string out;
  bool understood = argc % 2 == 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--rounds")
      rounds = std::atoi(argv[i + 1]);
    else if (name == "--out")
      out = argv[i + 1];
    else
      understood = false;
  }
  if (!understood || rounds < 1) {
    std::fprintf(stderr, "usage: bench_tables [--rounds N] [--out FILE]\n");
    return 2;
  }
  try {
    return allometry::bench::Run(rounds, out);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_tables: %s\n", error.what());
    return 1;
  }
}
