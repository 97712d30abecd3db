#include "worker/trainer/checkpoint/host_copies.h"

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>

namespace allometry::trainer {
namespace {

// Memory that cannot be pinned serves as well, only slower.
at::Tensor EmptyOnHost(const at::Tensor& like) {
  const auto options = at::TensorOptions().dtype(like.scalar_type());
  try {
    return at::empty(like.sizes(), options.pinned_memory(true));
  } catch (const c10::Error&) {
    return at::empty(like.sizes(), options);
  }
}

}  // namespace

const at::Tensor& HostCopies::RoomFor(const std::string& name, const at::Tensor& tensor) {
  at::Tensor& room = rooms_[name];
  if (!room.defined() || room.sizes() != tensor.sizes() || room.scalar_type() != tensor.scalar_type())
    room = EmptyOnHost(tensor);
  return room;
}

std::map<std::string, at::Tensor> HostCopies::Start(const std::map<std::string, at::Tensor>& tensors) {
  std::map<std::string, at::Tensor> copies = tensors;
  at::NoGradGuard no_grad;
  stream_.FollowCurrent();
  const c10::StreamGuard guard(stream_.stream());
  for (auto& [name, tensor] : copies) {
    if (tensor.is_cpu()) continue;
    sources_.push_back(tensor);
    tensor = RoomFor(name, tensor);
    tensor.copy_(sources_.back(), /*non_blocking=*/true);
  }
  if (!sources_.empty()) made_ = stream_.Mark();
  return copies;
}

void HostCopies::HoldDevice() const {
  if (made_) made_->block(stream_.Current());
}

void HostCopies::Wait() {
  if (made_) made_->synchronize();
  sources_.clear();
}

}  // namespace allometry::trainer
