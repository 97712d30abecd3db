#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "worker/trainer/distributed/collective.h"
#include "worker/trainer/engine/side_stream.h"

namespace allometry::trainer {

// NCCL's unique id as hexadecimal digits: rank 0 makes it, and it reaches the others in rank 0's word. PeerLost if
// NCCL's library cannot be loaded. The library is libnccl.so.2, which comes with LibTorch's CUDA build, or the file
// that ALLOMETRY_NCCL names.
std::string NewNcclId();

// Calls run on a stream of their own, after what the current stream holds when they are started; Wait makes the current
// stream wait, and the host not. A thread asks NCCL for errors, and `lost` why a peer is gone (empty: none is), several
// times a second, and whether what was started has ended after `patience`: all of these abort the communicator, so that
// nothing on the device waits for ever, and become PeerLost or CollectiveTimeout at the next call. An error of CUDA's
// own that NCCL reports is this rank's: std::runtime_error. What the device computed meanwhile is worth nothing: call
// Check before results are believed. The destructor waits, 30 s at most, for an abort's end, which comes when no CUDA
// graph holds calls of this any more: graphs must be gone before it.
//
// No call of NCCL's blocks the host: whatever NCCL has still to do with the other ranks, above all to meet them, is
// asked after until it is done, a peer is lost or `patience` is over, which is a CollectiveTimeout too.
class NcclCollective : public Collective {
 public:
  // Returns when all ranks have met.
  NcclCollective(const std::string& id, int rank, int ranks, const at::Device& device,
                 std::function<std::string()> lost, std::chrono::milliseconds patience);
  ~NcclCollective() override;
  int rank() const override { return rank_; }
  int size() const override { return ranks_; }
  std::unique_ptr<Pending> StartAllReduce(at::Tensor tensor) override;
  std::unique_ptr<Pending> StartReduceScatter(at::Tensor flat, Bounds bounds) override;
  std::unique_ptr<Pending> StartAllGather(at::Tensor flat, Bounds bounds) override;
  std::unique_ptr<Pending> StartBroadcast(at::Tensor tensor, int root) override;
  std::unique_ptr<Pending> StartAllToAll(at::Tensor sent, at::Tensor received) override;
  // Launches are not counted again.
  int64_t bytes_sent() const override { return bytes_sent_; }
  void BeginCapture() override { capturing_ = true; }
  void EndCapture() override { capturing_ = false; }
  void Launched() override;
  void Check() override;
  // Whether what the device does with the other ranks has ended is asked of `ended`, on another thread; when it has not
  // after `patience`, that is a CollectiveTimeout. Calls do this by themselves where devices have streams.
  void WatchUntil(std::function<bool()> ended);

 private:
  class Watch;
  using Call = std::function<int(void* communicator, void* stream)>;
  void WatchMark(c10::Event mark);
  std::unique_ptr<Pending> Start(std::vector<at::Tensor> tensors, const char* name, const Call& call);

  const int rank_, ranks_;
  int64_t bytes_sent_ = 0;  // as the least that is possible
  bool capturing_ = false;
  SideStream stream_;
  std::unique_ptr<Watch> watch_;
};

}  // namespace allometry::trainer
