#include "worker/trainer/distributed/collective.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

namespace allometry::trainer {
namespace {

constexpr int64_t kPieceBytes = 256 << 10;  // twice of it, and the socket's copy, fit a core's cache

std::span<char> AsBytes(const at::Tensor& t) { return {static_cast<char*>(t.data_ptr()), t.nbytes()}; }

at::Tensor PartOf(const at::Tensor& flat, const Bounds& bounds, int part) {
  const auto p = static_cast<size_t>(part);
  return flat.narrow(0, bounds[p], bounds[p + 1] - bounds[p]);
}

template <typename T>
void AddTo(const at::Tensor& sum, const at::Tensor& more) {
  T* to = sum.mutable_data_ptr<T>();
  const T* from = more.const_data_ptr<T>();
  for (int64_t i = 0; i < sum.numel(); ++i) to[i] += from[i];
}

// Elements first ... first + count - 1, as far as there are any.
at::Tensor Piece(const at::Tensor& flat, int64_t first, int64_t count) {
  first = std::min(first, flat.numel());
  return flat.narrow(0, first, std::min(count, flat.numel() - first));
}

// Not LibTorch's addition: that would wake a second team of threads beside the one that computes.
void Add(const at::Tensor& sum, const at::Tensor& more) {
  switch (sum.scalar_type()) {
    case at::kFloat:
      return AddTo<float>(sum, more);
    case at::kDouble:
      return AddTo<double>(sum, more);
    case at::kLong:
      return AddTo<int64_t>(sum, more);
    default:
      TORCH_CHECK(false, "ranks cannot add tensors of type ", sum.scalar_type());
  }
}

void CheckPlace(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.is_cpu() && tensor.is_contiguous(), "ranks on CPUs exchange contiguous tensors of the CPU");
}

}  // namespace

Bounds EvenBounds(int64_t size, int ranks) {
  Bounds bounds;
  for (int64_t r = 0; r <= ranks; ++r) bounds.push_back(size * r / ranks);
  return bounds;
}

at::Tensor Collective::AllToAll(const at::Tensor& sent) {
  at::Tensor received = at::empty_like(sent);
  StartAllToAll(sent, received)->Wait();
  return received;
}

// The thread that talks while the caller computes.
class TcpCollective::Queue {
 public:
  Queue() : thread_([this] { Run(); }) {}
  ~Queue() {
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  std::unique_ptr<Pending> Add(std::function<void()> work) {
    std::packaged_task<void()> task(std::move(work));
    auto pending = std::make_unique<Result>(task.get_future());
    {
      std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    changed_.notify_all();
    return pending;
  }

 private:
  struct Result : Pending {
    explicit Result(std::future<void> f) : future(std::move(f)) {}
    void Wait() override { future.get(); }
    std::future<void> future;
  };

  void Run() {
    for (;;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return closed_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      std::packaged_task<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::packaged_task<void()>> tasks_;  // guarded by mutex_
  bool closed_ = false;                           // guarded by mutex_
  std::thread thread_;
};

TcpCollective::TcpCollective(TcpMesh& mesh, int channel)
    : mesh_(mesh), channel_(channel), queue_(std::make_unique<Queue>()) {}

TcpCollective::~TcpCollective() = default;

// Part p travels once around the ring, from rank p + 1 to rank p, and is added to on the way: rank r has p's sum of
// ranks p + 1 ... r when it sends it on. It goes in pieces, the n-th of each rank at the same time: what has just come
// is added while the cache still holds it.
void TcpCollective::RingReduce(const at::Tensor& flat, const Bounds& bounds) {
  const int64_t piece = kPieceBytes / static_cast<int64_t>(flat.element_size());
  const at::Tensor room = at::empty({piece}, flat.options());
  const int n = size(), next = (rank() + 1) % n, previous = (rank() + n - 1) % n;
  for (int step = 1; step < n; ++step) {
    const at::Tensor out = PartOf(flat, bounds, (rank() - step + n) % n);
    const at::Tensor own = PartOf(flat, bounds, (rank() - step - 1 + 2 * n) % n);
    for (int64_t at = 0; at < std::max(out.numel(), own.numel()); at += piece) {
      const at::Tensor sum = Piece(own, at, piece), in = Piece(room, 0, sum.numel());
      mesh_.Exchange(channel_, next, AsBytes(Piece(out, at, piece)), previous, AsBytes(in));
      Add(sum, in);
    }
  }
}

void TcpCollective::RingGather(const at::Tensor& flat, const Bounds& bounds) {
  const int n = size(), next = (rank() + 1) % n, previous = (rank() + n - 1) % n;
  for (int step = 0; step + 1 < n; ++step) {
    const at::Tensor out = PartOf(flat, bounds, (rank() - step + n) % n);
    const at::Tensor in = PartOf(flat, bounds, (rank() - step - 1 + 2 * n) % n);
    mesh_.Exchange(channel_, next, AsBytes(out), previous, AsBytes(in));
  }
}

std::unique_ptr<Collective::Pending> TcpCollective::StartAllReduce(at::Tensor tensor) {
  CheckPlace(tensor);
  return queue_->Add([this, flat = tensor.view({-1})] {
    at::NoGradGuard no_grad;
    const Bounds bounds = EvenBounds(flat.numel(), size());
    RingReduce(flat, bounds);
    RingGather(flat, bounds);
  });
}

std::unique_ptr<Collective::Pending> TcpCollective::StartReduceScatter(at::Tensor flat, Bounds bounds) {
  CheckPlace(flat);
  return queue_->Add([this, flat = std::move(flat), bounds = std::move(bounds)] {
    at::NoGradGuard no_grad;
    RingReduce(flat, bounds);
  });
}

std::unique_ptr<Collective::Pending> TcpCollective::StartAllGather(at::Tensor flat, Bounds bounds) {
  CheckPlace(flat);
  return queue_->Add([this, flat = std::move(flat), bounds = std::move(bounds)] { RingGather(flat, bounds); });
}

// Along a chain from the root, in pieces, so that all ranks pass on at once.
std::unique_ptr<Collective::Pending> TcpCollective::StartBroadcast(at::Tensor tensor, int root) {
  CheckPlace(tensor);
  return queue_->Add([this, tensor = std::move(tensor), root] {
    constexpr size_t kPiece = 1 << 20;
    const int n = size(), place = (rank() - root + n) % n, next = (rank() + 1) % n, previous = (rank() + n - 1) % n;
    const std::span<char> all = AsBytes(tensor);
    for (size_t at = 0; at < all.size(); at += kPiece) {
      const std::span<char> piece = all.subspan(at, std::min(kPiece, all.size() - at));
      if (place > 0) mesh_.Receive(channel_, previous, piece);
      if (place + 1 < n) mesh_.Send(channel_, next, piece);
    }
  });
}

std::unique_ptr<Collective::Pending> TcpCollective::StartAllToAll(at::Tensor sent, at::Tensor received) {
  CheckPlace(sent);
  CheckPlace(received);
  TORCH_CHECK(sent.size(0) == size() && received.sizes() == sent.sizes(), "one slice for each rank");
  return queue_->Add([this, sent = std::move(sent), received = std::move(received)] {
    at::NoGradGuard no_grad;
    received.select(0, rank()).copy_(sent.select(0, rank()));
    for (int step = 1; step < size(); ++step) {
      const int to = (rank() + step) % size(), from = (rank() - step + size()) % size();
      mesh_.Exchange(channel_, to, AsBytes(sent.select(0, to)), from, AsBytes(received.select(0, from)));
    }
  });
}

}  // namespace allometry::trainer
