#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/result.h"

// What a cell's training reported step by step.
namespace allometry::records {

// One series of one pretraining cell, by rising place in its history.
struct Curve {
  std::string sweep, cell;
  std::string series;  // "train/loss", "valid/loss", ... (docs/trainer-contract.md)
  std::vector<int64_t> steps;
  std::vector<double> values;  // as many as steps

  std::string Name() const { return sweep.empty() ? cell : sweep + "/" + cell; }
};

// At most `most` points of a curve (0: all), for drawing: runs of points, wider the later they are, each with the mean
// of its finite values at its last step. So the steep beginning keeps its points, and the noise of the end is averaged.
// A run without a finite value is dropped.
Curve Thinned(const Curve& curve, size_t most);

// These series of the pretraining cells of these sweeps (none named: of all), in the sweeps' and the grid's order, each
// thinned to `most` points. Along the attempts that led to the accepted result, or to the newest attempt of a cell that
// has none; what a later attempt did again is left out. A cell without points has no curve. Reads like LoadSqlite, a
// cell a transaction, with its errors; kDataLoss: a damaged chunk.
common::Result<std::vector<Curve>> LoadCurves(const std::filesystem::path& database,
                                              const std::vector<std::string>& sweeps,
                                              const std::vector<std::string>& series, size_t most);

}  // namespace allometry::records
