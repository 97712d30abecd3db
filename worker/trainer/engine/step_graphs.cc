#include "worker/trainer/engine/step_graphs.h"

#include <ATen/ATen.h>

#include <cstdio>
#include <utility>

namespace allometry::trainer {
namespace {

// All numbers of the batch that are the same in every step of a graph.
std::vector<int64_t> ShapeOf(const DeviceBatch& batch) {
  std::vector<int64_t> shape = batch.inputs_bs.sizes().vec();
  shape.insert(shape.end(), {batch.rows, batch.own.first});
  shape.insert(shape.end(), batch.targets_bt.sizes().begin(), batch.targets_bt.sizes().end());
  return shape;
}

// The next launch writes over the graph's own.
StepResult CopyOf(const StepResult& result) {
  const auto copy = [](const at::Tensor& t) { return t.defined() ? t.clone() : t; };
  StepResult out{copy(result.loss), {}, copy(result.gradient_norm)};
  for (const auto& [name, mean] : result.means) out.means[name] = {copy(mean.sum), copy(mean.count)};
  return out;
}

// Why it failed; empty: it did not.
std::string Record(const StepGraphMaker& make, std::unique_ptr<StepGraph>& graph, const std::function<void()>& work) {
  try {
    graph = make();
    graph->Capture(work);
    return "";
  } catch (const c10::Error& e) {
    return e.what_without_backtrace();
  } catch (const std::exception& e) {
    return e.what();
  }
}

}  // namespace

StepResult StepGraphs::Take(const DeviceBatch& batch) {
  const std::vector<int64_t> shape = ShapeOf(batch);
  auto found = kept_.find(shape);
  if (found == kept_.end() || found->second.fails) {
    StepResult result = step_.compute(batch);
    if (found == kept_.end()) Meet(shape);
    return result;
  }
  Kept& kept = found->second;
  if (!kept.graph) {
    kept.batch = batch;
    kept.batch.inputs_bs = at::empty_like(batch.inputs_bs);
    kept.batch.targets_bt = at::empty_like(batch.targets_bt);
  }
  kept.batch.inputs_bs.copy_(batch.inputs_bs);
  kept.batch.targets_bt.copy_(batch.targets_bt);
  if (!kept.graph) Capture(kept);
  if (kept.fails) return step_.compute(batch);
  step_.launching();
  kept.graph->Launch();
  ++launches_;
  return CopyOf(kept.result);
}

void StepGraphs::Meet(const std::vector<int64_t>& shape) {
  if (kept_.size() < kMostShapes)
    kept_[shape];
  else if (!std::exchange(told_, true))
    std::fprintf(stderr, "batches have more than %zu shapes: steps of further ones are taken one operation at a time\n",
                 kMostShapes);
}

void StepGraphs::Capture(Kept& kept) {
  step_.begin_capture();
  std::string why_not = Record(make_, kept.graph, [&] { kept.result = step_.compute(kept.batch); });
  kept.memory = step_.end_capture();
  kept.fails = step_.failed_on_any_rank(!why_not.empty());
  if (!kept.fails) return;
  if (why_not.empty()) why_not = "another rank could not";
  std::fprintf(stderr, "steps of this shape are not recorded as a graph, but taken one operation at a time: %s\n",
               why_not.c_str());
  step_.abandon();
  kept.memory = at::Tensor();
  kept.result = {};
  kept.batch = {};
  kept.graph = nullptr;
}

}  // namespace allometry::trainer
