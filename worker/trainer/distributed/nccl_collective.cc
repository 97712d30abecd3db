#include "worker/trainer/distributed/nccl_collective.h"

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace allometry::trainer {
namespace {

constexpr auto kWatchInterval = std::chrono::milliseconds(200);

// ---- NCCL's C interface (nccl.h 2.x), as far as it is used: numbers and types are part of its binary interface.

struct UniqueId {
  char bytes[128];
};
using Communicator = void*;
constexpr int kSuccess = 0, kCudaError = 1, kInProgress = 7, kSum = 0;

int TypeOf(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kLong:
      return 4;
    case at::kFloat:
      return 7;
    case at::kDouble:
      return 8;
    case at::kBFloat16:
      return 9;
    default:
      TORCH_CHECK(false, "ranks do not exchange tensors of type ", tensor.scalar_type());
  }
}
constexpr int kBytes = 1;  // ncclUint8

struct Library {
  int (*get_unique_id)(UniqueId*);
  int (*init_rank)(Communicator*, int ranks, UniqueId, int rank);
  int (*abort)(Communicator);
  int (*async_error)(Communicator, int*);
  const char* (*error_string)(int);
  int (*all_reduce)(const void*, void*, size_t, int type, int op, Communicator, void* stream);
  int (*reduce)(const void*, void*, size_t, int type, int op, int root, Communicator, void* stream);
  int (*broadcast)(const void*, void*, size_t, int type, int root, Communicator, void* stream);
  int (*send)(const void*, size_t, int type, int peer, Communicator, void* stream);
  int (*receive)(void*, size_t, int type, int peer, Communicator, void* stream);
  int (*group_start)();
  int (*group_end)();
};

template <typename Function>
void Resolve(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  if (!function) throw PeerLost(std::string("NCCL's library has no ") + name);
}

Library Load() {
  const char* chosen = std::getenv("ALLOMETRY_NCCL");
  const std::string path = chosen ? chosen : "libnccl.so.2";
  void* handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) throw PeerLost("ranks on GPUs need NCCL, which cannot be loaded: " + std::string(::dlerror()));
  Library library{};
  Resolve(handle, "ncclGetUniqueId", library.get_unique_id);
  Resolve(handle, "ncclCommInitRank", library.init_rank);
  Resolve(handle, "ncclCommAbort", library.abort);
  Resolve(handle, "ncclCommGetAsyncError", library.async_error);
  Resolve(handle, "ncclGetErrorString", library.error_string);
  Resolve(handle, "ncclAllReduce", library.all_reduce);
  Resolve(handle, "ncclReduce", library.reduce);
  Resolve(handle, "ncclBroadcast", library.broadcast);
  Resolve(handle, "ncclSend", library.send);
  Resolve(handle, "ncclRecv", library.receive);
  Resolve(handle, "ncclGroupStart", library.group_start);
  Resolve(handle, "ncclGroupEnd", library.group_end);
  return library;
}

const Library& Nccl() {
  static const Library library = Load();
  return library;
}

std::exception_ptr ErrorOf(int code, const std::string& where) {
  const std::string text = where + Nccl().error_string(code);
  return code == kCudaError ? std::make_exception_ptr(std::runtime_error(text))
                            : std::make_exception_ptr(PeerLost(text));
}

void CheckCode(int code, const char* call) {
  if (code != kSuccess && code != kInProgress)
    std::rethrow_exception(ErrorOf(code, std::string("NCCL's ") + call + " failed: "));
}

UniqueId IdOf(const std::string& digits) {
  UniqueId id{};
  if (digits.size() != 2 * sizeof id.bytes) throw PeerLost("rank 0's word holds no NCCL id");
  for (size_t i = 0; i < sizeof id.bytes; ++i)
    id.bytes[i] = static_cast<char>(std::stoi(digits.substr(2 * i, 2), nullptr, 16));
  return id;
}

// call(part, its first element, its size) for every part that is not empty, as one group; the first code that fails.
template <typename F>
int Grouped(const Bounds& bounds, F call) {
  int code = Nccl().group_start();
  for (size_t part = 0; part + 1 < bounds.size() && code == kSuccess; ++part)
    if (bounds[part + 1] > bounds[part])
      code = call(static_cast<int>(part), bounds[part], static_cast<size_t>(bounds[part + 1] - bounds[part]));
  const int end = Nccl().group_end();
  return code == kSuccess ? end : code;
}

char* DataOf(const at::Tensor& tensor) { return static_cast<char*>(tensor.data_ptr()); }

}  // namespace

std::string NewNcclId() {
  UniqueId id{};
  CheckCode(Nccl().get_unique_id(&id), "ncclGetUniqueId");
  std::string digits;
  for (const char c : id.bytes) {
    std::array<char, 3> two{};
    std::snprintf(two.data(), two.size(), "%02x", static_cast<unsigned>(static_cast<unsigned char>(c)));
    digits += two.data();
  }
  return digits;
}

// The stream of the calls, beside the one that computes. A device without streams has neither (tests on CPUs).
struct NcclCollective::Streams {
  explicit Streams(const at::Device& d) : device(d), guard(d.type()), own(guard.getStream(d)) {
    if (!device.is_cpu()) own = guard.getStreamFromGlobalPool(device, /*isHighPriority=*/true);
  }
  void* handle() const { return device.is_cpu() ? nullptr : own.native_handle(); }
  // One stream waits for what another holds now.
  void Order(const c10::Stream& first, const c10::Stream& then) const {
    if (device.is_cpu()) return;
    c10::Event event(device.type());
    event.record(first);
    event.block(then);
  }
  c10::Stream current() const { return guard.getStream(device); }
  // Tells whether all that the calls' stream holds now has ended; nothing where there are no streams.
  std::function<bool()> Mark() const {
    if (device.is_cpu()) return nullptr;
    auto event = std::make_shared<c10::Event>(device.type());
    event->record(own);
    return [event] { return event->query(); };
  }

  at::Device device;
  c10::impl::VirtualGuardImpl guard;
  c10::Stream own;
};

// Owns the communicator, and ends it when something is wrong with it.
class NcclCollective::Watch {
 public:
  Watch(Communicator communicator, std::function<std::string()> lost, int64_t silence_timeout_s)
      : communicator_(communicator),
        lost_(std::move(lost)),
        patience_(std::chrono::seconds(silence_timeout_s)),
        thread_([this] { Run(); }) {}
  ~Watch() {
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
    thread_.join();
    std::lock_guard lock(mutex_);
    Abort();
  }

  // Calls f with the communicator, which is not aborted meanwhile; what it was aborted for if it has been.
  template <typename F>
  void With(const char* name, F f) {
    std::lock_guard lock(mutex_);
    if (error_) std::rethrow_exception(error_);
    CheckCode(f(communicator_), name);
  }
  // `ended`: whether what has been started until now has ended.
  void Started(std::function<bool()> ended) {
    std::lock_guard lock(mutex_);
    newest_ = std::move(ended);
  }

 private:
  using Clock = std::chrono::steady_clock;

  void Run() {
    std::unique_lock lock(mutex_);
    while (!closed_ && !error_) {
      Look();
      if (error_) Abort();
      changed_.wait_for(lock, kWatchInterval);
    }
  }
  void Look() {
    if (const std::string lost = lost_ ? lost_() : ""; !lost.empty()) error_ = std::make_exception_ptr(PeerLost(lost));
    int code = kSuccess;
    if (!error_ && Nccl().async_error(communicator_, &code) == kSuccess && code != kSuccess && code != kInProgress)
      error_ = ErrorOf(code, "NCCL reports: ");
    if (!error_ && IsSilent())
      error_ = std::make_exception_ptr(CollectiveTimeout(
          "an exchange with the other ranks has not ended for " +
          std::to_string(std::chrono::duration_cast<std::chrono::seconds>(patience_).count()) + " s"));
  }
  // One call is watched until it has ended, then the newest.
  bool IsSilent() {
    if (watched_ && !HasEnded(watched_)) return Clock::now() - since_ > patience_;
    watched_ = std::exchange(newest_, nullptr);
    since_ = Clock::now();
    return false;
  }
  // An error of the device is told where the device is used.
  static bool HasEnded(const std::function<bool()>& ended) {
    try {
      return ended();
    } catch (const std::exception&) {
      return true;
    }
  }
  void Abort() {
    if (communicator_) Nccl().abort(communicator_);
    communicator_ = nullptr;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  Communicator communicator_;          // guarded by mutex_
  std::exception_ptr error_;           // guarded by mutex_; why the communicator was aborted
  std::function<bool()> newest_;       // guarded by mutex_; of the newest call that is not watched yet
  std::function<bool()> watched_;      // the thread's own
  Clock::time_point since_;            // the thread's own; from when `watched_` was begun with
  bool closed_ = false;                // guarded by mutex_
  std::function<std::string()> lost_;  // called by the thread
  const Clock::duration patience_;
  std::thread thread_;
};

NcclCollective::NcclCollective(const std::string& id, int rank, int ranks, const at::Device& device,
                               std::function<std::string()> lost, int64_t silence_timeout_s)
    : rank_(rank), ranks_(ranks), streams_(std::make_unique<Streams>(device)) {
  const c10::impl::VirtualGuardImpl guard(device.type());
  guard.setDevice(device);
  Communicator communicator = nullptr;
  CheckCode(Nccl().init_rank(&communicator, ranks, IdOf(id), rank), "ncclCommInitRank");
  watch_ = std::make_unique<Watch>(communicator, std::move(lost), silence_timeout_s);
}

NcclCollective::~NcclCollective() = default;

void NcclCollective::Check() {
  watch_->With("communicator", [](Communicator) { return kSuccess; });
}

std::unique_ptr<Collective::Pending> NcclCollective::Start(std::vector<at::Tensor> tensors, const char* name,
                                                           const Call& call) {
  struct Result : Pending {
    Result(NcclCollective& owner, std::vector<at::Tensor> held) : collective(owner), tensors(std::move(held)) {}
    void Wait() override {
      collective.Check();
      collective.streams_->Order(collective.streams_->own, collective.streams_->current());
      tensors.clear();
    }
    NcclCollective& collective;
    std::vector<at::Tensor> tensors;  // kept until the current stream waits for them
  };
  streams_->Order(streams_->current(), streams_->own);
  watch_->With(name, [&](Communicator communicator) { return call(communicator, streams_->handle()); });
  if (auto ended = streams_->Mark()) watch_->Started(std::move(ended));
  return std::make_unique<Result>(*this, std::move(tensors));
}

std::unique_ptr<Collective::Pending> NcclCollective::StartAllReduce(at::Tensor tensor) {
  bytes_sent_ += 2 * static_cast<int64_t>(tensor.nbytes()) * (ranks_ - 1) / ranks_;
  return Start({tensor}, "ncclAllReduce", [&](Communicator communicator, void* stream) {
    return Nccl().all_reduce(DataOf(tensor), DataOf(tensor), static_cast<size_t>(tensor.numel()), TypeOf(tensor), kSum,
                             communicator, stream);
  });
}

// Parts may differ in size, so each is a reduction of its own; NCCL runs a group's calls together.
std::unique_ptr<Collective::Pending> NcclCollective::StartReduceScatter(at::Tensor flat, Bounds bounds) {
  bytes_sent_ += static_cast<int64_t>(flat.nbytes()) * (ranks_ - 1) / ranks_;
  return Start({flat}, "ncclReduce", [&](Communicator communicator, void* stream) {
    return Grouped(bounds, [&](int part, int64_t first, size_t count) {
      char* at = DataOf(flat) + first * flat.element_size();
      return Nccl().reduce(at, at, count, TypeOf(flat), kSum, part, communicator, stream);
    });
  });
}

std::unique_ptr<Collective::Pending> NcclCollective::StartAllGather(at::Tensor flat, Bounds bounds) {
  bytes_sent_ += static_cast<int64_t>(flat.nbytes()) * (ranks_ - 1) / ranks_;
  return Start({flat}, "ncclBroadcast", [&](Communicator communicator, void* stream) {
    return Grouped(bounds, [&](int part, int64_t first, size_t count) {
      char* at = DataOf(flat) + first * flat.element_size();
      return Nccl().broadcast(at, at, count, TypeOf(flat), part, communicator, stream);
    });
  });
}

std::unique_ptr<Collective::Pending> NcclCollective::StartBroadcast(at::Tensor tensor, int root) {
  bytes_sent_ += static_cast<int64_t>(tensor.nbytes());
  return Start({tensor}, "ncclBroadcast", [&](Communicator communicator, void* stream) {
    return Nccl().broadcast(DataOf(tensor), DataOf(tensor), static_cast<size_t>(tensor.numel()), TypeOf(tensor), root,
                            communicator, stream);
  });
}

std::unique_ptr<Collective::Pending> NcclCollective::StartAllToAll(at::Tensor sent, at::Tensor received) {
  const size_t bytes = sent.nbytes() / static_cast<size_t>(ranks_);
  bytes_sent_ += static_cast<int64_t>(bytes) * (ranks_ - 1);
  return Start({sent, received}, "ncclSend", [&](Communicator communicator, void* stream) {
    return Grouped(EvenBounds(ranks_, ranks_), [&](int peer, int64_t, size_t) {
      const size_t at = static_cast<size_t>(peer) * bytes;
      const int code = Nccl().send(DataOf(sent) + at, bytes, kBytes, peer, communicator, stream);
      return code == kSuccess ? Nccl().receive(DataOf(received) + at, bytes, kBytes, peer, communicator, stream) : code;
    });
  });
}

}  // namespace allometry::trainer
