#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "worker/trainer/distributed/collective.h"

namespace allometry::trainer {

// Sums gradients over ranks while the backward pass goes on: they are gathered in flat buckets, in about the order in
// which a backward pass finds them, and a bucket is sent as soon as it and all before it are full (Li et al. 2020,
// arXiv 2006.15704). The first bucket is small, so that the exchange begins early.
class GradientReducer {
 public:
  struct Options {
    int64_t first_bucket_bytes = 1 << 20;
    int64_t bucket_bytes = 25 << 20;
    // By tensor: the rank that needs its sum; empty: all ranks need all. With owners each bucket is freed but for the
    // parts of its own rank, when two more have been sent (ZeRO stage 2: Rajbhandari et al. 2020, arXiv 1910.02054).
    std::vector<int> owners = {};
  };

  // `like`: tensors of the gradients' sizes, type and device, in the order of the parameters. `collective` must outlive
  // this.
  GradientReducer(Collective& collective, const std::vector<at::Tensor>& like, Options options);
  GradientReducer(Collective& collective, const std::vector<at::Tensor>& like)
      : GradientReducer(collective, like, Options()) {}

  // This rank's gradient of tensor i in this step; at most once a step. The tensor may be changed afterwards.
  void Ready(size_t i, const at::Tensor& gradient);
  bool IsReady(size_t i) const { return filled_[i]; }

  // Ends the step: the sums over all ranks, views of the buckets that hold until the next call of Ready. Undefined
  // where no rank had a gradient, or where another rank owns the tensor.
  std::vector<at::Tensor> Finish();

  // Forgets what is ready of a step that is not taken to its end, on all ranks; nothing of it may be on its way but in
  // a graph that was not recorded to its end.
  void Reset();

  size_t buckets() const { return buckets_.size(); }
  int64_t held_bytes() const;  // of gradients and sums, now
  // Bytes of the bucket that is sent last: little of the backward pass is left to hide it behind.
  int64_t last_bucket_bytes() const;
  // What Finish has waited for so far: the part of the exchange that computation did not hide. On a GPU the host does
  // not wait, and this is about 0.
  double wait_seconds() const { return wait_seconds_; }

 private:
  struct Slot {
    size_t tensor;
    int64_t offset;  // in the bucket
  };
  // The gradients of its tensors, by owner, each owner's followed by a number for each of them: how many ranks had one.
  struct Bucket {
    std::vector<Slot> slots;
    std::vector<int64_t> marks;  // offsets of those numbers, by slot
    Bounds bounds;               // by owner
    int64_t size = 0;
    size_t missing = 0;
    at::Tensor flat;
    at::Tensor kept;  // of the sums what this rank needs, when they are there
    std::unique_ptr<Collective::Pending> pending;
  };
  struct Place {
    size_t bucket, slot;
  };

  void MakeBuckets();
  void LayOut(Bucket& bucket);
  void MakeRoom(Bucket& bucket) const;
  void Launch(Bucket& bucket);
  void LaunchFull();
  void Collect(Bucket& bucket);
  void BeginStep();
  int64_t FirstKept(const Bucket& bucket) const;
  void ReadMarks(const Bucket& bucket);
  int OwnerOf(size_t tensor) const { return options_.owners.empty() ? 0 : options_.owners[tensor]; }
  bool sharded() const { return !options_.owners.empty(); }

  Collective& collective_;
  Options options_;
  std::vector<at::Tensor> like_;
  std::vector<Bucket> buckets_;
  std::vector<Place> places_;                // by tensor
  std::vector<bool> filled_;                 // by tensor, in this step
  std::vector<bool> seen_filled_, present_;  // by tensor: of this rank and of any, when last asked
  double wait_seconds_ = 0;
  size_t next_ = 0;       // bucket to launch
  size_t collected_ = 0;  // buckets whose sums are there
};

// A rank for each tensor, so that the ranks have about the same number of elements: the largest first, each to the rank
// that has least.
std::vector<int> BalancedOwners(const std::vector<at::Tensor>& tensors, int ranks);

}  // namespace allometry::trainer
