#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "analysis/benchmarks.h"
#include "records/records.h"

// Small made-up studies, so that every test says only what matters to it.
namespace allometry::analysis {

// A finished cell whose loss is `loss` and whose forward FLOPs and parameters are `cost`.
inline records::Record Cell(const std::string& architecture, const std::string& size, uint64_t seed, double cost,
                            double loss) {
  records::Record r;
  r.sweep = "study";
  r.cell = architecture + "-" + size + "-s" + std::to_string(seed);
  r.architecture = architecture;
  r.size = size;
  r.seed = seed;
  r.state = records::CellState::kDone;
  r.device = "cpu";
  r.metrics = {
      {"validation_loss", loss}, {"forward_flops", cost}, {"parameters", cost}, {"device_seconds", cost / 1e6}};
  return r;
}

inline void Score(records::Record* record, const std::string& task, double value, bool at_chance = false) {
  record->finetune_state = records::CellState::kDone;
  record->scores[task] = {value, 0.01, 0.5, 1000, at_chance};
}

// The scores of some benchmark's tasks, all of their metrics `value`; WNLI is not among them.
inline void ScoreBenchmark(records::Record* record, std::span<const BenchmarkTask> tasks, double value) {
  for (const BenchmarkTask& task : tasks) {
    if (!EntersAverages(task.name)) continue;
    Score(record, std::string(task.name), value);
    records::Score& score = record->scores[std::string(task.name)];
    for (const std::string_view metric : task.metrics) score.metrics[std::string(metric)] = value;
  }
}

// `sizes` sizes a decade apart from `first_cost`, `seeds` seeds each: loss = level - slope * log10(cost) + bend * i^2
// +- noise.
struct Shape {
  int sizes = 3;
  int seeds = 2;
  double first_cost = 1e6;
  double level = 10;
  double slope = 0.5;
  double bend = 0;
  double noise = 0.01;
};

inline records::Table Grid(const std::string& architecture, const Shape& shape) {
  records::Table table;
  for (int i = 0; i < shape.sizes; ++i) {
    const double decades = 6 + i, cost = shape.first_cost * std::pow(10.0, i);
    for (int seed = 0; seed < shape.seeds; ++seed) {
      const double sign = shape.seeds == 1 ? 0 : 2.0 * seed / (shape.seeds - 1) - 1;
      const double loss = shape.level - shape.slope * decades + shape.bend * i * i + sign * shape.noise * (1 + 0.1 * i);
      table.push_back(Cell(architecture, "z" + std::to_string(i), static_cast<uint64_t>(seed), cost, loss));
      Score(&table.back(), "gloss", 0.5 + 0.05 * i + 0.004 * sign);
      Score(&table.back(), "sense", 0.4 + 0.05 * i + 0.004 * sign);
    }
  }
  return table;
}

inline records::Table operator+(records::Table a, const records::Table& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace allometry::analysis
