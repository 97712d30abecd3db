#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "worker/trainer/engine/side_stream.h"

namespace allometry::trainer {

// Copies of a device's tensors in the host's memory, made on a stream of their own while the device computes. The
// memory is pinned where the system lets it (LibTorch rounds each piece up to a power of two), and kept for the next
// copies. Tensors of a CPU are not copied.
//
// Start and HoldDevice are for one thread; Wait may be called by another one meanwhile.
class HostCopies {
 public:
  explicit HostCopies(const at::Device& device) : stream_(device) {}

  // Begins to copy the values that the current stream leaves, and returns where they will stand after Wait, by the same
  // names; a tensor of a CPU stands for itself. The copies hold until the next call, before which Wait must have been.
  std::map<std::string, at::Tensor> Start(const std::map<std::string, at::Tensor>& tensors);
  // What is put on the current stream from now on waits until the copies are made, and may change the tensors. The host
  // goes on.
  void HoldDevice() const;
  // Until the copies are made.
  void Wait();

 private:
  const at::Tensor& RoomFor(const std::string& name, const at::Tensor& tensor);

  SideStream stream_;
  std::map<std::string, at::Tensor> rooms_;
  std::vector<at::Tensor> sources_;  // alive until they are read
  std::optional<c10::Event> made_;   // none: nothing is copied
};

}  // namespace allometry::trainer
