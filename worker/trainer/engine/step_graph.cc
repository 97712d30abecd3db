#include "worker/trainer/engine/step_graph.h"

#include <dlfcn.h>

#include "worker/trainer/kernels/kernel_table.h"

namespace allometry::trainer {

StepGraphMaker CudaGraphs(std::string* why_not) {
  void* module = ::dlopen(kernels::FindModule(kGraphLibraryFile).c_str(), RTLD_NOW | RTLD_LOCAL);
  void* symbol = module ? ::dlsym(module, kGraphLibrarySymbol) : nullptr;
  if (symbol == nullptr) {
    if (why_not) *why_not = ::dlerror();
    return nullptr;
  }
  return [make = reinterpret_cast<StepGraph* (*)()>(symbol)] { return std::unique_ptr<StepGraph>(make()); };
}

}  // namespace allometry::trainer
