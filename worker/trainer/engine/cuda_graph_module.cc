// liballometry-graphs.so: CUDA graphs by LibTorch, whose allocator must know of them. A module of its own, so that the
// trainer neither needs CUDA's headers to be built nor its libraries to run on a CPU.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>

#include "worker/trainer/engine/step_graph.h"

namespace allometry::trainer {
namespace {

// All graphs share one pool: they are launched one after the other, and what one leaves is copied before the next.
at::cuda::MempoolId_t Pool() {
  static const at::cuda::MempoolId_t pool = at::cuda::graph_pool_handle();
  return pool;
}

class CudaGraph : public StepGraph {
 public:
  // Other threads go on with what a capture forbids (pinned memory for batches and checkpoints, events): only what this
  // thread does, and what is put on its stream, belongs to the graph.
  void Capture(const std::function<void()>& work) override {
    c10::cuda::CUDACachingAllocator::emptyCache();  // the steps before had their own memory, which a graph cannot use
    graph_.capture_begin(Pool(), cudaStreamCaptureModeThreadLocal);
    try {
      work();
    } catch (...) {
      End();
      throw;
    }
    graph_.capture_end();
  }

  void Launch() override { graph_.replay(); }

 private:
  // After an error, of which it may say the same once more.
  void End() noexcept {
    try {
      graph_.capture_end();
    } catch (const std::exception&) {
    }
  }

  at::cuda::CUDAGraph graph_;
};

}  // namespace
}  // namespace allometry::trainer

extern "C" __attribute__((visibility("default"))) allometry::trainer::StepGraph* allometry_new_cuda_graph() {
  return new allometry::trainer::CudaGraph;
}
