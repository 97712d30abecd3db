#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <functional>
#include <string>
#include <vector>

#include "arch/architecture.h"
#include "common/json.h"
#include "worker/trainer/engine/step_graph.h"

namespace allometry::trainer {

// Whether a device computes by the kernels, and by graphs of them, what it computes by LibTorch's own operations.
struct KernelCheck {
  bool kernels = false, graphs = false;
  std::string why_not;  // of the first that is false: what differs, or what failed
};

// A few steps of a small model.
struct KernelCheckCase {
  std::string architecture;
  arch::Shape shape;
  arch::Lengths lengths{32, 16};
  at::ScalarType type = at::kFloat;  // or bfloat16
  double dropout = 0;
  std::string optimizer = "adamw";
};

// What a GPU is asked: every architecture in both types, and with dropout where LibTorch's operations drop the same
// values, which attention in bf16 alone does not; the transformer at each depth that attention has kernels for, over
// several tiles of keys and all buckets of its bias, also with dropout; and a vocabulary whose logits are read twice.
std::vector<KernelCheckCase> KernelCheckCases();

struct KernelCheckOptions {
  std::vector<KernelCheckCase> cases;
  // Calls f such that layers and optimisers compute without, and with, the kernels.
  std::function<void(const std::function<void()>&f)> plainly, by_kernels;
  StepGraphMaker graphs;  // null: they count as equal
};

// The steps of each case, each way: losses, gradients' norms and, with AdamW, each tensor's mean gradient and change
// must agree within the types' rounding. With dropout in bf16 the kernels in micro-batches must agree with themselves
// in one. Errors that are thrown count as a difference; a kernel may also end the process.
KernelCheck CheckKernels(const at::Device& device, const KernelCheckOptions& options);

// The same of a GPU's module and KernelCheckCases. To be called in a process that does nothing else.
KernelCheck CheckKernels(const at::Device& device);

// For a process of its own, of device `cuda:N`: prints the verdict as JSON, and returns the exit code.
int PrintKernelCheck(const std::string& device);

// Adds `kernels`, `graphs` and `why_not` to each whole GPU of a probe's devices: the verdict of such a process on the
// first of its kind, since a kernel at fault, or one that waits for ever, ends the process. Up to two minutes a kind.
// `only`: of this one, as "cuda:N"; empty: of all.
void AddKernelChecks(common::Json* devices, const std::string& only);

}  // namespace allometry::trainer
