#pragma once

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "records/curves.h"
#include "tests/unit/analysis/study.h"

// A made-up study that looks like a real one: losses that fall to a floor with compute, scores that rise with them.
namespace allometry::report {

struct MadeUpStudy {
  std::vector<std::string> architectures = {"transformer", "glu", "lconv", "performer"};
  int sizes = 4;
  int seeds = 3;
  bool scores = true;
  double noise = 0.01;  // standard deviation of a seed's loss
};

inline records::Record MadeUpCell(const MadeUpStudy& study, size_t a, int size, int seed, double noise) {
  static const char* const kSizes[] = {"nano", "micro", "milli", "tiny", "mini", "small", "base", "large"};
  const double flops = 7e7 * std::pow(5.0, size) * (1 + 0.12 * static_cast<double>(a)), training = flops * 3e5;
  const double exponent = 0.18 - 0.012 * static_cast<double>(a), floor = 1.9 + 0.05 * static_cast<double>(a % 3);
  const double loss = floor + 5.5 * std::pow(training / 1e13, -exponent) + noise;
  records::Record cell = analysis::Cell(study.architectures[a], kSizes[size], static_cast<uint64_t>(seed), flops, loss);
  cell.metrics["parameters"] = 9e5 * std::pow(3.2, size) * (1 + 0.05 * static_cast<double>(a));
  cell.metrics["training_flops"] = training;
  cell.metrics["steps"] = 2000;
  cell.metrics["device_seconds"] = 40 * std::pow(3.0, size);
  if (!study.scores) return cell;
  const double score = 0.35 + 0.5 / (1 + std::exp(2.2 * (loss - 4.2)));
  const auto at = [&](double above) { return score + above + noise; };
  analysis::ScoreBenchmark(&cell, analysis::GlueTasks(), at(0.08));
  analysis::ScoreBenchmark(&cell, analysis::SuperGlueTasks(), at(0.02));
  analysis::ScoreBenchmark(&cell, analysis::SquadTasks(), at(-0.15));
  if (size == 0)
    for (auto& [task, one] : cell.scores) one.at_chance = task.starts_with("superglue_");
  return cell;
}

inline records::Table MakeTable(const MadeUpStudy& study) {
  std::mt19937_64 generator(7);
  std::normal_distribution<double> normal(0, study.noise);
  records::Table table;
  for (size_t a = 0; a < study.architectures.size(); ++a)
    for (int size = 0; size < study.sizes; ++size)
      for (int seed = 0; seed < study.seeds; ++seed)
        table.push_back(MadeUpCell(study, a, size, seed, study.noise > 0 ? normal(generator) : 0));
  return table;
}

// Losses that fall from ln 32128 to each cell's own.
inline std::vector<records::Curve> MakeCurves(const records::Table& table, int steps = 2000) {
  std::mt19937_64 generator(11);
  std::normal_distribution<double> normal(0, 0.06);
  std::vector<records::Curve> curves;
  for (const records::Record& cell : table) {
    const double last = cell.metrics.at("validation_loss");
    for (const char* series : {"train/loss", "valid/loss"}) {
      records::Curve curve{.sweep = cell.sweep, .cell = cell.cell, .series = series};
      const bool training = series[0] == 't';
      for (int step = training ? 2 : steps / 10; step <= steps; step += training ? 2 : steps / 10) {
        const double share = std::pow(static_cast<double>(step) / steps, 0.25);
        curve.steps.push_back(step);
        curve.values.push_back(10.4 + (last - 10.4) * share + (training ? normal(generator) : 0));
      }
      curves.push_back(std::move(curve));
    }
  }
  return curves;
}

// 2 to 32 layers crossed with widths of 128 to 2048, as in examples/depth_width.yaml.
inline records::Table MakeDepthAndWidth() {
  MadeUpStudy study{.architectures = {"transformer", "evolved", "mos", "lconv"}, .sizes = 1, .seeds = 1};
  records::Table table;
  for (size_t a = 0; a < study.architectures.size(); ++a)
    for (const int layers : {2, 4, 8, 16, 32})
      for (const int width : {128, 256, 512, 1024, 2048}) {
        records::Record cell = MadeUpCell(study, a, 0, 0, 0);
        cell.size = "small-nl" + std::to_string(layers) + "-dm" + std::to_string(width);
        cell.cell = cell.architecture + "-" + cell.size + "-s0";
        const double cost = 1e4 * layers * std::pow(width, 1.5);
        cell.metrics["forward_flops"] = cost;
        cell.metrics["training_flops"] = cost * 1e6;
        cell.metrics["parameters"] = cost / 100;
        cell.metrics["encoder_layers"] = cell.metrics["decoder_layers"] = layers;
        cell.metrics["d_model"] = width;
        cell.metrics["validation_loss"] =
            2 + 3 * std::pow(layers, -0.3 + 0.02 * static_cast<double>(a)) + 12 * std::pow(width, -0.5);
        table.push_back(std::move(cell));
      }
  return table;
}

}  // namespace allometry::report
