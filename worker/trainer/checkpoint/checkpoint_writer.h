#pragma once

#include <filesystem>
#include <functional>
#include <future>

#include "worker/trainer/checkpoint/checkpoint_store.h"
#include "worker/trainer/checkpoint/host_copies.h"

namespace allometry::trainer {

// Saves checkpoints on a thread of its own while training goes on; one at a time. Nothing of a CPU's tensors is copied:
// only an optimiser's step changes them, and HoldTraining, which comes before it, waits until their bytes have been
// handed to the system. Those of a GPU are copied first (HostCopies), and only its stream waits.
//
// All functions are for one thread. What the writing throws comes out of Start or Finish. The destructor waits.
class CheckpointWriter {
 public:
  // Called on the writer's thread when a checkpoint stands; its error is taken for the checkpoint's.
  using Placed = std::function<common::Status(int64_t step, const std::filesystem::path& folder)>;

  // Called on the writer's thread when all of a checkpoint has been computed and copied; throws what speaks against it.
  using Computed = std::function<void()>;

  // `store` must outlive this, and is not for others while one is under way.
  CheckpointWriter(CheckpointStore& store, const at::Device& device, Placed placed, Computed computed = nullptr)
      : store_(store), copies_(device), placed_(std::move(placed)), computed_(std::move(computed)) {}
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Begins to save. Waits for the checkpoint before, and returns its error if it has one that no Finish has told.
  common::Status Start(Checkpoint checkpoint);
  // To be called before the tensors of the last Start are changed.
  void HoldTraining();
  // Waits until nothing of them is needed any more, so that what were copies for it have been freed.
  void WaitUntilRead();
  // Whether one is being saved; and whether one was, whose end no Finish has told yet.
  bool busy() const;
  bool has_ended() const { return writing_.valid() && !busy(); }
  // Waits until the last checkpoint stands: its error, told once. Ok where there is none.
  common::Status Finish();

 private:
  common::Status Write(Checkpoint checkpoint, std::promise<void> read);

  CheckpointStore& store_;
  HostCopies copies_;
  Placed placed_;
  Computed computed_;
  bool on_host_ = false;                 // of the last checkpoint: all of it
  std::future<void> read_;               // of the last checkpoint: when nothing of its tensors is needed any more
  std::future<common::Status> writing_;  // last: its end is waited for before the members above go
};

}  // namespace allometry::trainer
