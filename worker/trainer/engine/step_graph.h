#pragma once

#include <functional>
#include <memory>
#include <string>

namespace allometry::trainer {

// Work on a device that is recorded once and then launched whole, at the addresses that it was recorded with.
class StepGraph {
 public:
  virtual ~StepGraph() = default;
  // Records what `work` puts on the current stream, which must not be the device's default one, without doing it. What
  // `work` allocates lives as long as the graph. Throws what `work` throws; the graph is then of no use.
  virtual void Capture(const std::function<void()>& work) = 0;
  // Puts the recorded work on the current stream.
  virtual void Launch() = 0;
};
// Null: this process cannot make graphs.
using StepGraphMaker = std::function<std::unique_ptr<StepGraph>()>;

// CUDA graphs, by the module beside the program (cuda_graph_module.cc). Null where it is missing or cannot be loaded,
// which `why_not`, if not null, then says. LibTorch's CUDA library must be loaded.
StepGraphMaker CudaGraphs(std::string* why_not = nullptr);
inline constexpr const char* kGraphLibraryFile = "liballometry-graphs.so";
inline constexpr const char* kGraphLibrarySymbol = "allometry_new_cuda_graph";

}  // namespace allometry::trainer
