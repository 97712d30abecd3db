#include "worker/trainer/optim/device_step.h"

#include <ATen/ATen.h>

#include <cstring>
#include <utility>

namespace allometry::trainer {
namespace {

// A list of plain structs as bytes.
template <typename T>
at::Tensor RoomFor(const std::vector<T>& values, at::Device device) {
  return at::empty({static_cast<int64_t>(values.size() * sizeof(T))}, at::TensorOptions(device).dtype(at::kByte));
}
template <typename T>
at::Tensor Bytes(const std::vector<T>& values) {
  const at::Tensor bytes = RoomFor(values, at::kCPU);
  if (!values.empty()) std::memcpy(bytes.data_ptr(), values.data(), values.size() * sizeof(T));
  return bytes;
}
template <typename T>
at::Tensor Upload(const std::vector<T>& values, at::Device device) {
  return Bytes(values).to(device);
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

void DeviceStep::SetRate(double rate) { rate_.fill_(rate); }

void DeviceStep::MeasureNorm(double limit) {
  limit_ = limit;
  if (norm_.defined()) return;
  norm_ = at::zeros({}, rate_.options());
  factor_ = at::ones({}, rate_.options());
  partial_ = at::empty({work_.tile_count}, rate_.options().dtype(at::kDouble));
}

void DeviceStep::SumNormOverRanks(const std::vector<bool>& counts, std::function<void(const at::Tensor&)> sum) {
  std::vector<double> by_tile;
  for (const kernels::OptimizerTile& tile : plan_.tiles)
    by_tile.push_back(counts[static_cast<size_t>(tile.tensor)] ? 1.0 : 0.0);
  counts_ = at::tensor(by_tile, at::kDouble).to(device_);
  sum_over_ranks_ = std::move(sum);
}

at::Tensor DeviceStep::totals() const {
  return workspace_.narrow(0, work_.totals, 2 * work_.tensor_count).view({work_.tensor_count, 2});
}

void DeviceStep::SetCopies(const std::vector<at::Tensor>& copies) {
  copies_ = copies;
  for (size_t i = 0; i < copies.size(); ++i) plan_.tensors[i].copy = static_cast<Bf16*>(kernels::Memory(copies[i]));
  tensors_ = at::Tensor();
}

void DeviceStep::Take(const std::vector<at::Tensor>& gradients) {
  bool moved = !tensors_.defined();
  for (size_t i = 0; i < gradients.size(); ++i) {
    const void* gradient = kernels::Memory(gradients[i]);
    moved = moved || plan_.tensors[i].gradient != gradient;
    plan_.tensors[i].gradient = gradient;
  }
  if (moved && !capturing_) tensors_ = Upload(plan_.tensors, device_);
  work_.tensors = static_cast<const kernels::OptimizerTensor*>(kernels::Memory(tensors_));
  if (norm_.defined()) Norm();
}

void DeviceStep::Norm() {
  kernels::Run(table_, table_.gradient_norm, rate_,
               {.work = work_,
                .partial = partial_.mutable_data_ptr<double>(),
                .norm = kernels::Floats(norm_),
                .factor = kernels::Floats(factor_),
                .limit = static_cast<float>(limit_)});
  if (sum_over_ranks_) FinishNorm();
}

// In place of what the kernel makes of this rank's squares alone.
void DeviceStep::FinishNorm() {
  at::Tensor of_all = (partial_ * counts_).sum();
  sum_over_ranks_(of_all);
  norm_.copy_(of_all.sqrt_());
  if (limit_ > 0) factor_.copy_(of_all.reciprocal_().mul_(limit_).clamp_max_(1).nan_to_num_(1));
}

// The list lies outside of the graph's own memory: there the kernels before this one may have had the same place.
void DeviceStep::BeginCapture() {
  capturing_ = true;
  tensors_ = RoomFor(plan_.tensors, device_);
}

at::Tensor DeviceStep::EndCapture() {
  capturing_ = false;
  at::Tensor list = std::exchange(tensors_, at::Tensor());
  list.copy_(Bytes(plan_.tensors));
  return list;
}

void KernelOptimizer::SetRate(double rate) {
  rate_ = rate;
  if (device_) device_->SetRate(rate);
}

void KernelOptimizer::TakeKernels(const std::vector<DeviceStep::Slot>& slots) {
  if (slots.empty()) return;
  if (const kernels::KernelTable* table = kernels::KernelsFor(slots[0].value))
    device_ = std::make_unique<DeviceStep>(*table, slots);
}

DeviceStep& KernelOptimizer::device() const {
  TORCH_CHECK(device_, "this optimiser's steps are not made by kernels");
  return *device_;
}

}  // namespace allometry::trainer
