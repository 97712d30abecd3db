#include "worker/trainer/distributed/nccl_collective.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace allometry::trainer {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kAbortPatience = std::chrono::milliseconds(30'000);
constexpr auto kWatchInterval = std::chrono::milliseconds(200);
constexpr auto kAskInterval = std::chrono::microseconds(50);

// ---- NCCL's C interface (nccl.h 2.x), as far as it is used: numbers and types are part of its binary interface.

struct UniqueId {
  char bytes[128];
};
using Communicator = void*;
constexpr int kSuccess = 0, kCudaError = 1, kInProgress = 7, kSum = 0;

// ncclConfig_t as of 2.14: later ones have more members, and take defaults for those that `version` did not know yet.
struct Config {
  size_t size = sizeof(Config);
  unsigned magic = 0xcafebeef;
  unsigned version = 21400;
  int blocking = INT_MIN;  // INT_MIN: undefined
  int unknown = INT_MIN;   // where the structure would be padded
};

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
  int (*init_rank)(Communicator*, int ranks, UniqueId, int rank, Config*);
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
  Resolve(handle, "ncclCommInitRankConfig", library.init_rank);
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

bool IsFailure(int code) { return code != kSuccess && code != kInProgress; }

std::exception_ptr ErrorOf(int code, const std::string& where) {
  const std::string text = where + Nccl().error_string(code);
  return code == kCudaError ? std::make_exception_ptr(std::runtime_error(text))
                            : std::make_exception_ptr(PeerLost(text));
}

void CheckCode(int code, const char* call) {
  if (IsFailure(code)) std::rethrow_exception(ErrorOf(code, std::string("NCCL's ") + call + " failed: "));
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
  for (size_t part = 0; part + 1 < bounds.size() && !IsFailure(code); ++part)
    if (bounds[part + 1] > bounds[part])
      code = call(static_cast<int>(part), bounds[part], static_cast<size_t>(bounds[part + 1] - bounds[part]));
  const int end = Nccl().group_end();
  return IsFailure(code) ? code : end;
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

// Owns the communicator, and ends it when something is wrong with it.
class NcclCollective::Watch {
 public:
  Watch(std::function<std::string()> lost, std::chrono::milliseconds patience)
      : lost_(std::move(lost)), patience_(patience) {}
  ~Watch() {
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
    Abort();
    // A device that is lost may never let NCCL end; the program leaves without it then.
    if (aborted_.valid() && aborted_.wait_for(std::min(patience_, kAbortPatience)) != std::future_status::ready)
      std::fprintf(stderr, "NCCL's communicator does not end, and is left\n");
  }

  // Makes the communicator, and begins to watch it.
  void Meet(const std::string& id, int rank, int ranks) {
    {
      std::lock_guard lock(mutex_);
      Config config;
      config.blocking = 0;
      CheckCode(Nccl().init_rank(&communicator_, ranks, IdOf(id), rank, &config), "ncclCommInitRankConfig");
      Settle("ncclCommInitRankConfig");
    }
    thread_ = std::thread([this] { Run(); });
  }

  // Calls f with the communicator, which is not aborted meanwhile; what it was aborted for if it has been.
  template <typename F>
  void With(const char* name, F f) {
    std::lock_guard lock(mutex_);
    if (error_) std::rethrow_exception(error_);
    CheckCode(f(communicator_), name);
    Settle(name);
  }
  // `ended`: whether what has been started until now has ended.
  void Started(std::function<bool()> ended) {
    std::lock_guard lock(mutex_);
    newest_ = std::move(ended);
  }

 private:
  int Code() const {
    int code = kSuccess;
    const int asked = Nccl().async_error(communicator_, &code);
    return IsFailure(asked) ? asked : code;
  }
  // What is wrong; null if nothing is.
  std::exception_ptr Trouble(int code) const {
    if (IsFailure(code)) return ErrorOf(code, "NCCL reports: ");
    const std::string lost = lost_ ? lost_() : "";
    return lost.empty() ? nullptr : std::make_exception_ptr(PeerLost(lost));
  }
  // Waits until NCCL has done what it was called for: before, it takes no other call, and nothing is on the stream.
  void Settle(const char* name) {
    const auto deadline = Clock::now() + patience_;
    for (int code = Code(); code != kSuccess; code = Code()) {
      error_ = Trouble(code);
      if (!error_ && Clock::now() >= deadline) error_ = TooLong(std::string("NCCL's ") + name);
      if (error_) {
        Abort();
        std::rethrow_exception(error_);
      }
      std::this_thread::sleep_for(kAskInterval);
    }
  }
  std::exception_ptr TooLong(const std::string& what) const {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(patience_).count();
    return std::make_exception_ptr(CollectiveTimeout(what + " has not come to its end within " +
                                                     std::to_string(seconds) +
                                                     " s: another rank does not take part in it"));
  }
  void Run() {
    std::unique_lock lock(mutex_);
    while (!closed_ && !error_) {
      error_ = Trouble(Code());
      if (!error_ && IsSilent()) error_ = TooLong("an exchange with the other ranks");
      if (error_) Abort();
      changed_.wait_for(lock, kWatchInterval);
    }
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
  // NCCL tells what is on the device to end, and then waits until no CUDA graph holds a call of this communicator:
  // until its owner, which the error must reach first, has let go of its graphs. So nobody waits for it but the
  // destructor.
  void Abort() {
    Communicator communicator = std::exchange(communicator_, nullptr);
    if (!communicator) return;
    std::packaged_task<void()> abort([communicator] { Nccl().abort(communicator); });
    aborted_ = abort.get_future();
    std::thread(std::move(abort)).detach();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  Communicator communicator_ = nullptr;  // guarded by mutex_
  std::exception_ptr error_;             // guarded by mutex_; why the communicator was aborted
  std::function<bool()> newest_;         // guarded by mutex_; of the newest call that is not watched yet
  std::function<bool()> watched_;        // the thread's own
  Clock::time_point since_;              // the thread's own; from when `watched_` was begun with
  bool closed_ = false;                  // guarded by mutex_
  std::function<std::string()> lost_;    // called with mutex_ held
  const std::chrono::milliseconds patience_;
  std::thread thread_;
  std::future<void> aborted_;
};

NcclCollective::NcclCollective(const std::string& id, int rank, int ranks, const at::Device& device,
                               std::function<std::string()> lost, std::chrono::milliseconds patience)
    : rank_(rank), ranks_(ranks), stream_(device), watch_(std::make_unique<Watch>(std::move(lost), patience)) {
  c10::impl::VirtualGuardImpl(device.type()).setDevice(device);
  watch_->Meet(id, rank, ranks);
}

NcclCollective::~NcclCollective() = default;

void NcclCollective::WatchMark(c10::Event mark) {
  WatchUntil([mark = std::make_shared<c10::Event>(std::move(mark))] { return mark->query(); });
}

void NcclCollective::WatchUntil(std::function<bool()> ended) { watch_->Started(std::move(ended)); }

void NcclCollective::Launched() {
  Check();
  if (stream_.handle()) WatchMark(stream_.MarkCurrent());
}

void NcclCollective::Check() {
  watch_->With("communicator", [](Communicator) { return kSuccess; });
}

std::unique_ptr<Collective::Pending> NcclCollective::Start(std::vector<at::Tensor> tensors, const char* name,
                                                           const Call& call) {
  struct Result : Pending {
    Result(NcclCollective& owner, std::vector<at::Tensor> held) : collective(owner), tensors(std::move(held)) {}
    void Wait() override {
      collective.Check();
      collective.stream_.LeadCurrent();
      tensors.clear();
    }
    NcclCollective& collective;
    std::vector<at::Tensor> tensors;  // kept until the current stream waits for them
  };
  stream_.FollowCurrent();
  watch_->With(name, [&](Communicator communicator) { return call(communicator, stream_.handle()); });
  // What a capture records never runs itself, and asking after it would spoil the capture.
  if (stream_.handle() && !capturing_) WatchMark(stream_.Mark());
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
      return IsFailure(code) ? code : Nccl().receive(DataOf(received) + at, bytes, kBytes, peer, communicator, stream);
    });
  });
}

}  // namespace allometry::trainer
