#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/FunctionRef.h>

#include "worker/trainer/kernels/kernel_table.h"

// Between LibTorch's tensors and the table of kernels.
namespace allometry::trainer::kernels {

// The kernels for a tensor, or null: it is no GPU's, neither float32 nor bfloat16, or there is no module of kernels.
const KernelTable* KernelsFor(const at::Tensor& t);

// Whether tensors of GPUs take the module's kernels at all, in the whole process; they do unless told otherwise. Before
// a model and its optimiser are made.
void UseModule(bool use);

// While it lives, this thread takes these kernels for tensors of a CPU: how the tests run layers and optimisers through
// the emulated ones, which compute in a CPU's memory.
class ForceKernels {
 public:
  explicit ForceKernels(const KernelTable& table);
  ~ForceKernels();
  ForceKernels(const ForceKernels&) = delete;
  ForceKernels& operator=(const ForceKernels&) = delete;

 private:
  const KernelTable* before_;
};

inline DataType TypeOf(const at::Tensor& t) {
  return t.scalar_type() == at::kBFloat16 ? DataType::kBfloat16 : DataType::kFloat32;
}
inline void* Memory(const at::Tensor& t) { return t.defined() ? t.data_ptr() : nullptr; }
inline float* Floats(const at::Tensor& t) { return t.defined() ? t.data_ptr<float>() : nullptr; }

// f(stream), where the tensor's device is current and the stream is its current one; throws what a launch reports.
void OnStreamOf(const KernelTable& table, const at::Tensor& t, c10::function_ref<void(Stream)> f);

// Queues one kernel's work for tensors like `like`.
template <typename Args>
void Run(const KernelTable& table, void (*kernel)(Stream, DataType, const Args&), const at::Tensor& like,
         const Args& args) {
  OnStreamOf(table, like, [&](Stream stream) { kernel(stream, TypeOf(like), args); });
}

}  // namespace allometry::trainer::kernels
