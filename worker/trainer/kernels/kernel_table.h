#pragma once

#include <cstddef>
#include <string>

#include "worker/trainer/kernels/flash_attention.h"
#include "worker/trainer/kernels/norm.h"
#include "worker/trainer/kernels/types.h"

// The kernels as a table of functions. They live in a module of their own (liballometry-kernels.so beside the program),
// which is loaded when a GPU is opened: the program itself links nothing of CUDA's and runs where there is none.
//
// Called for a tensor on a GPU, with its device current:
//   const KernelTable* kernels = LoadKernelTable(&why);
//   void* stream = at::cuda::getCurrentCUDAStream().stream();
//   kernels->norm_forward(stream, DataType::kBfloat16, {.x = x.data_ptr(), .weight = ..., .rows = r, .d = d});
// A launch that failed is told by last_error, as always with CUDA possibly at a later call.
namespace allometry::trainer::kernels {

struct KernelTable {
  int version = 0;
  size_t bytes = 0;  // of this struct, as the module knows it

  // The device itself, for tests and small tools that have no LibTorch.
  int (*device_count)() = nullptr;
  const char* (*last_error)() = nullptr;  // null: none. Forgets it.
  void* (*allocate)(size_t bytes) = nullptr;
  void (*release)(void* memory) = nullptr;
  void (*to_device)(void* to, const void* from, size_t bytes) = nullptr;
  void (*to_host)(void* to, const void* from, size_t bytes) = nullptr;  // after all that was queued

  void (*norm_forward)(Stream, DataType, const NormForwardArgs&) = nullptr;
  void (*norm_backward)(Stream, DataType, const NormBackwardArgs&) = nullptr;
  void (*attention_forward)(Stream, const AttentionForwardArgs&) = nullptr;
  void (*attention_backward)(Stream, const AttentionBackwardArgs&) = nullptr;
};

// Of the table's layout and of what its functions mean.
inline constexpr int kKernelTableVersion = 1;
inline constexpr char kKernelLibraryFile[] = "liballometry-kernels.so";
inline constexpr char kKernelLibrarySymbol[] = "AllometryKernels";

// The module's table, loaded at the first call; it stays. Null, with the reason: there is no module beside the program,
// it is another build's, or it finds no GPU. Thread-safe.
const KernelTable* LoadKernelTable(std::string* why_not = nullptr);

// Each fills in its own part; a file of kernels defines one.
void AddDeviceFunctions(KernelTable& table);
void AddAttentionKernels(KernelTable& table);
void AddNormKernels(KernelTable& table);
KernelTable MakeKernelTable();

}  // namespace allometry::trainer::kernels
