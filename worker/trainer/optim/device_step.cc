#include "worker/trainer/optim/device_step.h"

#include <ATen/ATen.h>

#include <cstring>

namespace allometry::trainer {
namespace {

// A list of plain structs as bytes on the device.
template <typename T>
at::Tensor Upload(const std::vector<T>& values, at::Device device) {
  const at::Tensor bytes = at::empty({static_cast<int64_t>(values.size() * sizeof(T))}, at::kByte);
  if (!values.empty()) std::memcpy(bytes.data_ptr(), values.data(), values.size() * sizeof(T));
  return bytes.to(device);
}

kernels::OptimizerTensor Addresses(const DeviceStep::Slot& slot) {
  using kernels::Floats;
  return {.value = Floats(slot.value),
          .first_moment = Floats(slot.first_moment),
          .second_moment = Floats(slot.second_moment),
          .row_means = Floats(slot.row_means),
          .column_means = Floats(slot.column_means)};
}

}  // namespace

DeviceStep::DeviceStep(const kernels::KernelTable& table, const std::vector<Slot>& slots)
    : table_(table), device_(slots.at(0).value.device()) {
  std::vector<kernels::OptimizerTensor> tensors;
  std::vector<kernels::OptimizerShape> shapes;
  for (const Slot& slot : slots) {
    tensors.push_back(Addresses(slot));
    shapes.push_back(slot.shape);
  }
  plan_ = kernels::PlanOptimizer(tensors, shapes);
  tiles_ = Upload(plan_.tiles, device_);
  means_ = Upload(plan_.means, device_);
  matrices_ = Upload(plan_.matrices, device_);
  workspace_ = at::empty({plan_.workspace}, at::TensorOptions(device_).dtype(at::kFloat));
  rate_ = at::zeros({}, workspace_.options());
  work_ = kernels::WorkOf(plan_);
  work_.tiles = static_cast<const kernels::OptimizerTile*>(kernels::Memory(tiles_));
  work_.means = static_cast<const kernels::OptimizerMeans*>(kernels::Memory(means_));
  work_.matrices = static_cast<const kernels::OptimizerTile*>(kernels::Memory(matrices_));
  work_.workspace = kernels::Floats(workspace_);
}

void DeviceStep::Take(const std::vector<at::Tensor>& gradients, double rate) {
  bool moved = !tensors_.defined();
  for (size_t i = 0; i < gradients.size(); ++i) {
    const void* gradient = kernels::Memory(gradients[i]);
    moved = moved || plan_.tensors[i].gradient != gradient;
    plan_.tensors[i].gradient = gradient;
  }
  if (moved) tensors_ = Upload(plan_.tensors, device_);
  work_.tensors = static_cast<const kernels::OptimizerTensor*>(kernels::Memory(tensors_));
  rate_.fill_(rate);
}

}  // namespace allometry::trainer
