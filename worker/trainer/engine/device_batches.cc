#include "worker/trainer/engine/device_batches.h"

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <utility>

namespace allometry::trainer {

DeviceBatches::DeviceBatches(BatchPump& pump, int64_t count, const at::Device& device, const RankGroup* group)
    : pump_(pump), left_(count), device_(device), group_(group), stream_(device) {}

DeviceBatch DeviceBatches::Send(const HostBatch& batch) const {
  const int64_t rows = batch.inputs_bs.size(0);
  const RankGroup::Rows own = group_ ? group_->RowsOf(rows) : RankGroup::Rows{0, rows};
  const c10::StreamGuard guard(stream_.stream());
  const auto sent = [&](const at::Tensor& all) {
    return all.narrow(0, own.first, own.count).to(device_, /*non_blocking=*/true);
  };
  return {sent(batch.inputs_bs), sent(batch.targets_bt), own, rows, batch.target_tokens};
}

DeviceBatch DeviceBatches::Next() {
  if (!sent_) {
    sent_ = Send(pump_.Next());
    --left_;
  }
  DeviceBatch batch = *std::exchange(sent_, std::nullopt);
  stream_.LeadCurrent();
  // The allocator must not give this memory to the next copy before the current stream has done with it.
  const c10::impl::VirtualGuardImpl guard(device_.type());
  for (const at::Tensor& tensor : {batch.inputs_bs, batch.targets_bt})
    guard.recordDataPtrOnStream(tensor.storage().data_ptr(), stream_.Current());
  return batch;
}

void DeviceBatches::Prefetch() {
  if (device_.is_cpu() || sent_ || left_ == 0) return;
  sent_ = Send(pump_.Next());
  --left_;
}

BatchPump::Maker PinnedFor(const at::Device& device, BatchPump::Maker maker) {
  if (device.is_cpu()) return maker;
  return [maker = std::move(maker)](int64_t step) {
    HostBatch batch = maker(step);
    batch.inputs_bs = batch.inputs_bs.pin_memory();
    batch.targets_bt = batch.targets_bt.pin_memory();
    return batch;
  };
}

}  // namespace allometry::trainer
