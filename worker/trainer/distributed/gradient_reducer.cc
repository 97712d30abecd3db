#include "worker/trainer/distributed/gradient_reducer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <numeric>

namespace allometry::trainer {
namespace {

constexpr size_t kBucketsOnTheirWay = 2;  // of sharded gradients, before the sums of the first are waited for

}  // namespace

GradientReducer::GradientReducer(Collective& collective, const std::vector<at::Tensor>& like, Options options)
    : collective_(collective), options_(std::move(options)), places_(like.size()), filled_(like.size(), false) {
  for (const at::Tensor& tensor : like) like_.push_back(tensor.detach());
  MakeBuckets();
}

void GradientReducer::MakeBuckets() {
  int64_t bytes = 0, limit = options_.first_bucket_bytes;
  for (size_t i = like_.size(); i-- > 0;) {
    const auto more = static_cast<int64_t>(like_[i].nbytes());
    if (buckets_.empty() || bytes + more > limit) {
      if (!buckets_.empty()) limit = options_.bucket_bytes;
      buckets_.emplace_back();
      bytes = 0;
    }
    buckets_.back().slots.push_back({i, 0});
    bytes += more;
  }
  for (size_t b = 0; b < buckets_.size(); ++b) {
    LayOut(buckets_[b]);
    for (size_t s = 0; s < buckets_[b].slots.size(); ++s) places_[buckets_[b].slots[s].tensor] = {b, s};
  }
}

void GradientReducer::LayOut(Bucket& bucket) {
  std::ranges::stable_sort(bucket.slots, {}, [this](const Slot& slot) { return OwnerOf(slot.tensor); });
  bucket.missing = bucket.slots.size();
  bucket.marks.resize(bucket.slots.size());
  bucket.bounds = {0};
  size_t s = 0;
  for (int rank = 0; rank < collective_.size(); ++rank) {
    const size_t begin = s;
    for (; s < bucket.slots.size() && OwnerOf(bucket.slots[s].tensor) == rank; ++s) {
      bucket.slots[s].offset = bucket.size;
      bucket.size += like_[bucket.slots[s].tensor].numel();
    }
    for (size_t m = begin; m < s; ++m) bucket.marks[m] = bucket.size++;
    bucket.bounds.push_back(bucket.size);
  }
}

void GradientReducer::Ready(size_t i, const at::Tensor& gradient) {
  at::NoGradGuard no_grad;
  const Place place = places_[i];
  Bucket& bucket = buckets_[place.bucket];
  TORCH_CHECK(!filled_[i], "gradient ", i, " is ready twice in one step");
  MakeRoom(bucket);
  bucket.flat.narrow(0, bucket.slots[place.slot].offset, like_[i].numel()).view(like_[i].sizes()).copy_(gradient);
  bucket.flat.narrow(0, bucket.marks[place.slot], 1).fill_(1);
  filled_[i] = true;
  --bucket.missing;
  LaunchFull();
}

// In their order on every rank, whatever the order in which gradients come.
void GradientReducer::LaunchFull() {
  while (next_ < buckets_.size() && buckets_[next_].missing == 0) {
    Launch(buckets_[next_++]);
    // So that no rank ever holds all gradients. The backward pass waits here where it is faster than the exchange.
    if (sharded() && next_ > collected_ + kBucketsOnTheirWay) Collect(buckets_[collected_++]);
  }
}

void GradientReducer::MakeRoom(Bucket& bucket) const {
  if (!bucket.flat.defined()) bucket.flat = at::empty({bucket.size}, like_[bucket.slots[0].tensor].options());
}

// What has no gradient counts as zero; the rest has been written over in this step.
void GradientReducer::Launch(Bucket& bucket) {
  MakeRoom(bucket);
  for (size_t s = 0; s < bucket.slots.size() && bucket.missing > 0; ++s) {
    const Slot& slot = bucket.slots[s];
    if (filled_[slot.tensor]) continue;
    bucket.flat.narrow(0, slot.offset, like_[slot.tensor].numel()).zero_();
    bucket.flat.narrow(0, bucket.marks[s], 1).zero_();
  }
  bucket.pending =
      sharded() ? collective_.StartReduceScatter(bucket.flat, bucket.bounds) : collective_.StartAllReduce(bucket.flat);
}

void GradientReducer::Collect(Bucket& bucket) {
  const auto start = std::chrono::steady_clock::now();
  bucket.pending->Wait();
  wait_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  bucket.pending.reset();
  if (!sharded()) {
    bucket.kept = bucket.flat;
    return;
  }
  const int64_t first = FirstKept(bucket);
  bucket.kept =
      bucket.flat.narrow(0, first, bucket.bounds[static_cast<size_t>(collective_.rank()) + 1] - first).clone();
  bucket.flat = at::Tensor();
}

std::vector<at::Tensor> GradientReducer::Finish() {
  at::NoGradGuard no_grad;
  while (next_ < buckets_.size()) Launch(buckets_[next_++]);
  while (collected_ < buckets_.size()) Collect(buckets_[collected_++]);
  std::vector<at::Tensor> sums(like_.size());
  // A GPU is asked only when this rank's own gradients have changed: which tensors have one is a fact of the model.
  const bool ask = like_.empty() || like_[0].is_cpu() || seen_filled_ != filled_;
  present_.resize(like_.size());
  for (Bucket& bucket : buckets_) {
    if (ask) ReadMarks(bucket);
    for (const Slot& slot : bucket.slots) {
      if (sharded() && OwnerOf(slot.tensor) != collective_.rank()) continue;
      if (!present_[slot.tensor]) continue;
      const at::Tensor& like = like_[slot.tensor];
      sums[slot.tensor] = bucket.kept.narrow(0, slot.offset - FirstKept(bucket), like.numel()).view(like.sizes());
    }
  }
  seen_filled_ = filled_;
  BeginStep();
  return sums;
}

void GradientReducer::BeginStep() {
  for (Bucket& bucket : buckets_) {
    bucket.missing = bucket.slots.size();
    bucket.kept = at::Tensor();
  }
  next_ = collected_ = 0;
  std::fill(filled_.begin(), filled_.end(), false);
}

void GradientReducer::Reset() {
  for (Bucket& bucket : buckets_) {
    bucket.pending.reset();
    if (sharded()) bucket.flat = at::Tensor();
  }
  BeginStep();
}

int64_t GradientReducer::held_bytes() const {
  int64_t bytes = 0;
  for (const Bucket& bucket : buckets_) {
    if (bucket.flat.defined()) bytes += static_cast<int64_t>(bucket.flat.nbytes());
    if (sharded() && bucket.kept.defined()) bytes += static_cast<int64_t>(bucket.kept.nbytes());
  }
  return bytes;
}

int64_t GradientReducer::last_bucket_bytes() const {
  return buckets_.empty() ? 0 : buckets_.back().size * static_cast<int64_t>(like_[0].element_size());
}

// Of the bucket's first element that is kept.
int64_t GradientReducer::FirstKept(const Bucket& bucket) const {
  return sharded() ? bucket.bounds[static_cast<size_t>(collective_.rank())] : 0;
}

void GradientReducer::ReadMarks(const Bucket& bucket) {
  for (size_t s = 0; s < bucket.slots.size(); ++s) {
    const int64_t mark = bucket.marks[s] - FirstKept(bucket);
    if (mark >= 0 && mark < bucket.kept.numel())
      present_[bucket.slots[s].tensor] = bucket.kept[mark].item<double>() != 0;
  }
}

std::vector<int> BalancedOwners(const std::vector<at::Tensor>& tensors, int ranks) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::greater(), [&](size_t i) { return tensors[i].numel(); });
  std::vector<int> owners(tensors.size());
  std::vector<int64_t> load(static_cast<size_t>(ranks), 0);
  for (const size_t i : order) {
    const auto least = std::ranges::min_element(load);
    owners[i] = static_cast<int>(least - load.begin());
    *least += tensors[i].numel();
  }
  return owners;
}

}  // namespace allometry::trainer
