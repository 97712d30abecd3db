#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <optional>

#include "worker/trainer/distributed/rank_group.h"
#include "worker/trainer/engine/batch_pump.h"
#include "worker/trainer/engine/side_stream.h"

namespace allometry::trainer {

// This rank's rows of a batch, on its device.
struct DeviceBatch {
  at::Tensor inputs_bs, targets_bt;  // int64
  RankGroup::Rows own;               // which rows of the batch they are
  int64_t rows = 0;                  // of the whole batch
  int64_t target_tokens = 0;         // unpadded targets of the whole batch
};

// Brings a pump's batches to the device. To a GPU the next one travels while this one is computed with: out of pinned
// memory, on a stream of its own. On a CPU the rows are views. For one thread.
class DeviceBatches {
 public:
  // `group`: whose rows are divided; null: all are this rank's. The pump gives `count` batches and must outlive this.
  DeviceBatches(BatchPump& pump, int64_t count, const at::Device& device, const RankGroup* group);

  // The next batch; the current stream waits until it has come, the host does not.
  DeviceBatch Next();
  // Sends the batch after the last one on its way, if there is one and the device is not the host itself. To be called
  // when the work on the last one has been given to the device.
  void Prefetch();

 private:
  DeviceBatch Send(const HostBatch& batch) const;

  BatchPump& pump_;
  int64_t left_;  // that the pump has yet to give
  at::Device device_;
  const RankGroup* group_;
  SideStream stream_;
  std::optional<DeviceBatch> sent_;
};

// A maker whose batches are in pinned memory if the device is a GPU: only from there does a copy run beside the host.
BatchPump::Maker PinnedFor(const at::Device& device, BatchPump::Maker maker);

}  // namespace allometry::trainer
