#pragma once

#include <c10/core/Device.h>

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

struct KernelCheckOptions {
  std::vector<std::string> architectures;
  arch::Shape shape;  // four layers at least, which every architecture takes
  // Calls f such that layers and optimisers compute without, and with, the kernels.
  std::function<void(const std::function<void()>&f)> plainly, by_kernels;
  StepGraphMaker graphs;  // null: they count as equal
};

// Some steps of each architecture, small, in both types, each way: losses and gradients' norms must agree within the
// types' rounding. Errors that are thrown count as a difference; a kernel may also end the process.
KernelCheck CheckKernels(const at::Device& device, const KernelCheckOptions& options);

// The same of a GPU's module and of every architecture. To be called in a process that does nothing else.
KernelCheck CheckKernels(const at::Device& device);

// For a process of its own, of device `cuda:N`: prints the verdict as JSON, and returns the exit code.
int PrintKernelCheck(const std::string& device);

// Adds `kernels`, `graphs` and `why_not` to each whole GPU of a probe's devices: the verdict of such a process on the
// first of its kind, since a kernel at fault, or one that waits for ever, ends the process. Up to two minutes a kind.
// `only`: of this one, as "cuda:N"; empty: of all.
void AddKernelChecks(common::Json* devices, const std::string& only);

}  // namespace allometry::trainer
