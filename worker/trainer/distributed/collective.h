#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "worker/trainer/distributed/tcp_mesh.h"

namespace allometry::trainer {

// Part r of a flat tensor is elements bounds[r] ... bounds[r + 1] - 1; there are ranks + 1 bounds, the first is 0, the
// last the tensor's size. Parts may be empty.
using Bounds = std::vector<int64_t>;

// `size` elements in parts whose sizes differ by one at most.
Bounds EvenBounds(int64_t size, int ranks);

// What ranks that train one model together do with tensors. Every rank makes the same calls in the same order, with
// tensors of equal types and sizes. Tensors are contiguous: float32, float64 or int64 (bfloat16 too where nothing is
// summed), on the CPU for TcpCollective and on the GPU for NcclCollective. Sums are taken in one fixed order, so that
// every rank has the same bits, on every run with the same number of ranks. One thread at a time; failures are
// PeerLost.
class Collective {
 public:
  // A call that goes on while its caller computes.
  class Pending {
   public:
    virtual ~Pending() = default;
    virtual void Wait() = 0;  // until the tensor may be used; once
  };

  virtual ~Collective() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // In place: the sum over all ranks. The tensor must not be touched before Wait.
  virtual std::unique_ptr<Pending> StartAllReduce(at::Tensor tensor) = 0;
  // In place: this rank's part becomes the sum, the other parts are left undefined.
  virtual std::unique_ptr<Pending> StartReduceScatter(at::Tensor flat, Bounds bounds) = 0;
  // In place: every part becomes that of the rank whose part it is.
  virtual std::unique_ptr<Pending> StartAllGather(at::Tensor flat, Bounds bounds) = 0;
  virtual std::unique_ptr<Pending> StartBroadcast(at::Tensor tensor, int root) = 0;
  // Slice r of `sent` (the first dimension is the ranks') goes to rank r, which has it as slice `rank()` of `received`.
  virtual std::unique_ptr<Pending> StartAllToAll(at::Tensor sent, at::Tensor received) = 0;

  // Calls between these are recorded in a CUDA graph, and are made whenever it is launched: to be told of that by
  // Launched. A first call must have been made before. Nothing to do where there are no graphs.
  virtual void BeginCapture() {}
  virtual void EndCapture() {}
  virtual void Launched() {}

  // PeerLost if a peer is known to be lost, even if no call waits for it. What a device has computed before may be
  // believed. For any thread.
  virtual void Check() {}
  // What this rank has sent so far.
  virtual int64_t bytes_sent() const = 0;

  void AllReduce(const at::Tensor& tensor) { StartAllReduce(tensor)->Wait(); }
  void ReduceScatter(const at::Tensor& flat, const Bounds& bounds) { StartReduceScatter(flat, bounds)->Wait(); }
  void AllGather(const at::Tensor& flat, const Bounds& bounds) { StartAllGather(flat, bounds)->Wait(); }
  void Broadcast(const at::Tensor& tensor, int root) { StartBroadcast(tensor, root)->Wait(); }
  at::Tensor AllToAll(const at::Tensor& sent);
};

// Rings over TCP for ranks on CPUs. Calls are made one after the other on a thread of their own. Of a tensor of n bytes
// an all-reduce sends 2 n (ranks - 1) / ranks from each rank, which is the least that is possible (Patarasuk and Yuan
// 2009), reduce-scatter and all-gather half of it.
class TcpCollective : public Collective {
 public:
  TcpCollective(TcpMesh& mesh, int channel);
  ~TcpCollective() override;
  int rank() const override { return mesh_.rank(); }
  int size() const override { return mesh_.size(); }
  std::unique_ptr<Pending> StartAllReduce(at::Tensor tensor) override;
  std::unique_ptr<Pending> StartReduceScatter(at::Tensor flat, Bounds bounds) override;
  std::unique_ptr<Pending> StartAllGather(at::Tensor flat, Bounds bounds) override;
  std::unique_ptr<Pending> StartBroadcast(at::Tensor tensor, int root) override;
  std::unique_ptr<Pending> StartAllToAll(at::Tensor sent, at::Tensor received) override;
  int64_t bytes_sent() const override { return mesh_.bytes_sent(); }

 private:
  class Queue;
  void RingReduce(const at::Tensor& flat, const Bounds& bounds);
  void RingGather(const at::Tensor& flat, const Bounds& bounds);

  TcpMesh& mesh_;
  const int channel_;
  std::unique_ptr<Queue> queue_;
};

}  // namespace allometry::trainer
