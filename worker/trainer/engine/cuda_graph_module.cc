// liballometry-graphs.so: CUDA graphs by LibTorch, whose allocator must know of them. A module of its own, so that the
// trainer neither needs CUDA's headers to be built nor its libraries to run on a CPU.
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>

#include <exception>

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
    try {
      graph_.capture_begin(Pool(), cudaStreamCaptureModeThreadLocal);
      work();
    } catch (...) {
      End(/*error=*/nullptr);
      throw;
    }
    std::exception_ptr error;
    End(&error);
    if (error) std::rethrow_exception(error);
  }

  void Launch() override { graph_.replay(); }

 private:
  // LibTorch's own end throws for a capture that CUDA has called off, and then leaves its allocators recording: no
  // memory would ever be given back again, and no other graph could be recorded.
  void End(std::exception_ptr* error) noexcept {
    const std::exception_ptr ended = Try([&] { graph_.capture_end(); });
    if (error) *error = ended;
    if (!ended) return;
    const c10::DeviceIndex device = c10::cuda::current_device();
    at::HostAllocator* host = at::getHostAllocator(at::kCUDA);
    if (!Try([&] { c10::cuda::CUDACachingAllocator::endAllocateToPool(device, Pool()); }))
      Try([&] { c10::cuda::CUDACachingAllocator::releasePool(device, Pool()); });
    if (!Try([&] { host->end_allocate_to_pool(Pool()); })) Try([&] { host->release_pool(Pool()); });
  }

  template <typename F>
  static std::exception_ptr Try(F f) noexcept {
    try {
      f();
      return nullptr;
    } catch (...) {
      return std::current_exception();
    }
  }

  at::cuda::CUDAGraph graph_;
};

}  // namespace
}  // namespace allometry::trainer

extern "C" __attribute__((visibility("default"))) allometry::trainer::StepGraph* allometry_new_cuda_graph() {
  return new allometry::trainer::CudaGraph;
}
