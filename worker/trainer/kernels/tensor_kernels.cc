#include "worker/trainer/kernels/tensor_kernels.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <atomic>

namespace allometry::trainer::kernels {
namespace {

thread_local const KernelTable* forced = nullptr;
std::atomic<bool> uses_module{true};

}  // namespace

const KernelTable* KernelsFor(const at::Tensor& t) {
  if (t.scalar_type() != at::kFloat && t.scalar_type() != at::kBFloat16) return nullptr;
  if (forced) return forced;
  return t.is_cuda() && uses_module.load(std::memory_order_relaxed) ? LoadKernelTable() : nullptr;
}

void UseModule(bool use) { uses_module = use; }

ForceKernels::ForceKernels(const KernelTable& table) : before_(forced) { forced = &table; }
ForceKernels::~ForceKernels() { forced = before_; }

void OnStreamOf(const KernelTable& table, const at::Tensor& t, c10::function_ref<void(Stream)> f) {
  const c10::DeviceGuard guard(t.device());
  Stream stream = nullptr;
  if (!t.is_cpu()) stream = c10::impl::VirtualGuardImpl(t.device().type()).getStream(t.device()).native_handle();
  f(stream);
  const char* error = table.last_error();
  TORCH_CHECK(error == nullptr, "a kernel cannot run on the GPU: ", error);
}

}  // namespace allometry::trainer::kernels
