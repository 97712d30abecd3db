#include "worker/trainer/checkpoint/checkpoint_writer.h"

#include <algorithm>
#include <chrono>

namespace allometry::trainer {

common::Status CheckpointWriter::Start(Checkpoint checkpoint) {
  ALLO_RETURN_IF_ERROR(Finish());
  on_host_ = std::ranges::all_of(checkpoint.tensors, [](const auto& item) { return item.second.is_cpu(); });
  checkpoint.tensors = copies_.Start(checkpoint.tensors);
  std::promise<void> read;
  read_ = read.get_future();
  writing_ = std::async(std::launch::async, &CheckpointWriter::Write, this, std::move(checkpoint), std::move(read));
  return common::Ok();
}

// A promise that is dropped, by an error or an exception, ends the waiting for it too.
common::Status CheckpointWriter::Write(Checkpoint checkpoint, std::promise<void> read) {
  copies_.Wait();
  if (computed_) computed_();
  const int64_t step = checkpoint.step;
  const bool copied = !on_host_;
  if (copied) read.set_value();
  const auto written = [&] {
    if (!copied) read.set_value();
  };
  ALLO_ASSIGN_OR_RETURN(const std::filesystem::path folder, store_.Save(std::move(checkpoint), written));
  return placed_(step, folder);
}

void CheckpointWriter::HoldTraining() {
  copies_.HoldDevice();
  if (on_host_) WaitUntilRead();
}

void CheckpointWriter::WaitUntilRead() {
  if (read_.valid()) read_.wait();
  read_ = {};
}

bool CheckpointWriter::busy() const {
  return writing_.valid() && writing_.wait_for(std::chrono::seconds(0)) != std::future_status::ready;
}

common::Status CheckpointWriter::Finish() { return writing_.valid() ? writing_.get() : common::Ok(); }

}  // namespace allometry::trainer
