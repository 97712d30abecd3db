#include "worker/trainer/kernels/optimizers.h"

namespace allometry::trainer::kernels {
namespace {

int64_t Tiles(int64_t size, int64_t tile) { return (size + tile - 1) / tile; }

void AddTiles(OptimizerPlan& plan, size_t index, int64_t matrices) {
  OptimizerTensor& tensor = plan.tensors[index];
  tensor.first_tile = static_cast<int32_t>(plan.tiles.size());
  for (int64_t matrix = 0; matrix < matrices; ++matrix)
    for (int64_t row = 0; row < tensor.rows; row += kTileRows)
      for (int64_t column = 0; column < tensor.columns; column += kTileColumns)
        plan.tiles.push_back({static_cast<int32_t>(index), static_cast<int32_t>(matrix), static_cast<int32_t>(row),
                              static_cast<int32_t>(column)});
  tensor.tiles = static_cast<int32_t>(plan.tiles.size()) - tensor.first_tile;
}

int64_t Reserve(OptimizerPlan& plan, int64_t floats) {
  const int64_t at = plan.workspace;
  plan.workspace += floats;
  return at;
}

void AddMeans(OptimizerPlan& plan, size_t index, int64_t matrix, int64_t size, bool of_columns) {
  for (int64_t first = 0; first < size; first += kTileColumns)
    plan.means.push_back(
        {static_cast<int32_t>(index), static_cast<int32_t>(matrix), static_cast<int32_t>(first), of_columns});
}

void AddFactored(OptimizerPlan& plan, size_t index, const OptimizerShape& shape) {
  OptimizerTensor& tensor = plan.tensors[index];
  tensor.factored = true;
  tensor.rows = shape.rows;
  tensor.columns = shape.columns;
  AddTiles(plan, index, shape.matrices);
  tensor.row_sums = Reserve(plan, shape.matrices * Tiles(shape.columns, kTileColumns) * shape.rows);
  tensor.column_sums = Reserve(plan, shape.matrices * Tiles(shape.rows, kTileRows) * shape.columns);
  tensor.matrix_means = Reserve(plan, shape.matrices);
  for (int64_t matrix = 0; matrix < shape.matrices; ++matrix) {
    plan.matrices.push_back({static_cast<int32_t>(index), static_cast<int32_t>(matrix), 0, 0});
    AddMeans(plan, index, matrix, shape.rows, false);
    AddMeans(plan, index, matrix, shape.columns, true);
  }
}

}  // namespace

OptimizerPlan PlanOptimizer(const std::vector<OptimizerTensor>& tensors, const std::vector<OptimizerShape>& shapes) {
  OptimizerPlan plan{.tensors = tensors};
  for (size_t i = 0; i < tensors.size(); ++i) {
    plan.tensors[i].count = shapes[i].matrices * shapes[i].rows * shapes[i].columns;
    plan.tensors[i].whole_count = plan.tensors[i].count * shapes[i].parts;
    if (shapes[i].factored) AddFactored(plan, i, shapes[i]);
  }
  plan.factored_tiles = static_cast<int64_t>(plan.tiles.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (shapes[i].factored) continue;
    plan.tensors[i].columns = kTileColumns;
    plan.tensors[i].rows = Tiles(plan.tensors[i].count, kTileColumns);
    AddTiles(plan, i, 1);
  }
  // Behind the sums: the squares of value and update, for every tile and for every tensor.
  Reserve(plan, 2 * static_cast<int64_t>(plan.tiles.size()) + 2 * static_cast<int64_t>(tensors.size()));
  return plan;
}

OptimizerWork WorkOf(const OptimizerPlan& plan) {
  OptimizerWork work;
  work.tensor_count = static_cast<int64_t>(plan.tensors.size());
  work.tile_count = static_cast<int64_t>(plan.tiles.size());
  work.factored_tiles = plan.factored_tiles;
  work.means_count = static_cast<int64_t>(plan.means.size());
  work.matrix_count = static_cast<int64_t>(plan.matrices.size());
  work.totals = plan.workspace - 2 * work.tensor_count;
  work.sums = work.totals - 2 * work.tile_count;
  return work;
}

}  // namespace allometry::trainer::kernels
