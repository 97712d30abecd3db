#pragma once

#include <cstddef>
#include <string>

#include "worker/trainer/kernels/convolution.h"
#include "worker/trainer/kernels/cross_entropy.h"
#include "worker/trainer/kernels/experts.h"
#include "worker/trainer/kernels/flash_attention.h"
#include "worker/trainer/kernels/gates.h"
#include "worker/trainer/kernels/linear_attention.h"
#include "worker/trainer/kernels/norm.h"
#include "worker/trainer/kernels/optimizers.h"
#include "worker/trainer/kernels/row_random.h"
#include "worker/trainer/kernels/softmax.h"
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

  void (*cross_entropy)(Stream, DataType, const CrossEntropyArgs&) = nullptr;
  void (*mixture)(Stream, DataType, const MixtureArgs&) = nullptr;

  void (*gate_forward)(Stream, DataType, const GateForwardArgs&) = nullptr;
  void (*gate_backward)(Stream, DataType, const GateBackwardArgs&) = nullptr;
  void (*relu_forward)(Stream, DataType, const ReluForwardArgs&) = nullptr;
  void (*relu_backward)(Stream, DataType, const ReluBackwardArgs&) = nullptr;
  void (*gru_reset_forward)(Stream, DataType, const GruResetForwardArgs&) = nullptr;
  void (*gru_reset_backward)(Stream, DataType, const GruResetBackwardArgs&) = nullptr;
  void (*gru_mix_forward)(Stream, DataType, const GruMixForwardArgs&) = nullptr;
  void (*gru_mix_backward)(Stream, DataType, const GruMixBackwardArgs&) = nullptr;

  // Before a step: *step += 1, and steps[i] += 1 for the tensors that have a gradient.
  void (*advance)(Stream, int64_t* step) = nullptr;
  void (*advance_each)(Stream, const OptimizerWork&, float* steps) = nullptr;
  void (*gradient_norm)(Stream, DataType, const GradientNormArgs&) = nullptr;
  void (*adamw)(Stream, DataType, const AdamWArgs&) = nullptr;
  void (*adafactor_measure)(Stream, DataType, const AdafactorArgs&) = nullptr;
  void (*adafactor_apply)(Stream, DataType, const AdafactorArgs&) = nullptr;

  void (*convolve)(Stream, DataType, const ConvolveArgs&) = nullptr;
  void (*convolve_kernel_gradient)(Stream, DataType, const ConvolveKernelGradientArgs&) = nullptr;
  void (*dynamic_convolve)(Stream, DataType, const DynamicConvolveArgs&) = nullptr;
  void (*dynamic_convolve_backward)(Stream, DataType, const DynamicConvolveBackwardArgs&) = nullptr;

  void (*softmax_forward)(Stream, DataType, const SoftmaxForwardArgs&) = nullptr;
  void (*softmax_backward)(Stream, DataType, const SoftmaxBackwardArgs&) = nullptr;

  void (*route)(Stream, const RouteArgs&) = nullptr;
  void (*gather_rows)(Stream, DataType, const GatherRowsArgs&) = nullptr;
  void (*row_dots)(Stream, DataType, const RowDotsArgs&) = nullptr;

  void (*features_forward)(Stream, DataType, const FeaturesForwardArgs&) = nullptr;
  void (*features_backward)(Stream, DataType, const FeaturesBackwardArgs&) = nullptr;
  void (*carried_sums)(Stream, DataType, const CarriedSumsArgs&) = nullptr;
  void (*quotient_forward)(Stream, DataType, const QuotientForwardArgs&) = nullptr;
  void (*quotient_backward)(Stream, DataType, const QuotientBackwardArgs&) = nullptr;

  void (*random_mask)(Stream, DataType, const RandomMaskArgs&) = nullptr;
  void (*random_uniform)(Stream, const RandomUniformArgs&) = nullptr;

  void (*attention_forward)(Stream, const AttentionForwardArgs&) = nullptr;
  void (*attention_backward)(Stream, const AttentionBackwardArgs&) = nullptr;
};

// Of the table's layout and of what its functions mean.
inline constexpr int kKernelTableVersion = 4;
inline constexpr char kKernelLibraryFile[] = "liballometry-kernels.so";
inline constexpr char kKernelLibrarySymbol[] = "AllometryKernels";

// The module's table, loaded at the first call; it stays. Null, with the reason: there is no module beside the program,
// it is another build's, or it finds no GPU. Thread-safe.
const KernelTable* LoadKernelTable(std::string* why_not = nullptr);
// Where a module lies: beside the program, or beside the folder that the program lies in (tests); else its bare name,
// for the system's loader to look for.
std::string FindModule(const std::string& file);

// Each fills in its own part; a file of kernels defines one.
void AddDeviceFunctions(KernelTable& table);
void AddAttentionKernels(KernelTable& table);
void AddConvolutionKernels(KernelTable& table);
void AddCrossEntropyKernels(KernelTable& table);
void AddExpertKernels(KernelTable& table);
void AddGateKernels(KernelTable& table);
void AddLinearAttentionKernels(KernelTable& table);
void AddNormKernels(KernelTable& table);
void AddOptimizerKernels(KernelTable& table);
void AddRowRandomKernels(KernelTable& table);
void AddSoftmaxKernels(KernelTable& table);
KernelTable MakeKernelTable();

}  // namespace allometry::trainer::kernels
