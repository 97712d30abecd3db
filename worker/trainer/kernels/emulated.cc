#include "worker/trainer/kernels/emulated.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

// ---- Fibers. ucontext's switch is a system call, which costs more than most kernels' work between two barriers: where
// the processor's calling convention is known the switch is written out.
#if defined(__x86_64__)
extern "C" void AllometrySwitchFiber(void** save, void* to);
asm(R"(
.text
.type AllometrySwitchFiber,@function
AllometrySwitchFiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size AllometrySwitchFiber,.-AllometrySwitchFiber
)");
#endif

namespace allometry::trainer::emulated {
namespace {

constexpr size_t kStackBytes = 256 * 1024, kUsableBytes = kStackBytes - 64 * 1024;  // pages have at most 64 KiB
constexpr size_t kGuardBytes = 256;                                                 // behind the dynamic shared memory
constexpr unsigned char kGuard = 0xa5, kUnset = 0xff;

// A stack with a page below it that nobody may touch.
class Stack {
 public:
  Stack() {
    base_ = ::mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base_ == MAP_FAILED) throw std::bad_alloc();
    ::mprotect(base_, static_cast<size_t>(::sysconf(_SC_PAGESIZE)), PROT_NONE);
  }
  ~Stack() { ::munmap(base_, kStackBytes); }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  char* bottom() const { return static_cast<char*>(base_); }

 private:
  void* base_;
};

enum class State { kReady, kAtBarrier, kInCollective, kDone };

struct PendingCopy {
  void* to;
  const void* from;
  size_t bytes;
  int group;
};

struct Fiber {
  dim3 index;
  State state = State::kReady;
  // Of the collective in which it waits.
  const char* name = nullptr;
  uint32_t mask = 0;
  const void* in = nullptr;
  void* out = nullptr;
  Execute execute = nullptr;
  std::deque<PendingCopy> copies;
  int copy_group = 0;
#if defined(__x86_64__)
  void* stack_pointer = nullptr;
#else
  ucontext_t context;
#endif
  void* fake_stack = nullptr;
};

class Block;
thread_local Block* running = nullptr;
uint64_t order_seed = 1;

void FiberMain();

// The stacks of earlier launches, kept: most of a test's launches are small.
Stack& StackOf(size_t i) {
  static thread_local std::vector<std::unique_ptr<Stack>> stacks;
  while (stacks.size() <= i) stacks.push_back(std::make_unique<Stack>());
  return *stacks[i];
}

class Block {
 public:
  Block(dim3 size, size_t shared_bytes, const std::function<void()>& kernel, uint64_t seed)
      : kernel_(kernel), shared_bytes_(shared_bytes), random_(seed), fibers_(size.x * size.y * size.z) {
    shared_.resize((shared_bytes + kGuardBytes) / 16 + 2);
    std::memset(shared(), kUnset, shared_bytes);
    std::memset(shared() + shared_bytes, kGuard, kGuardBytes);
    for (size_t i = 0; i < fibers_.size(); ++i) {
      const auto at = static_cast<unsigned>(i);
      fibers_[i].index = {at % size.x, at / size.x % size.y, at / size.x / size.y};
      order_.push_back(i);
      Prepare(i);
    }
  }

  void Run() {
    while (true) {
      std::shuffle(order_.begin(), order_.end(), random_);
      bool ran = false;
      for (const size_t i : order_)
        if (fibers_[i].state == State::kReady) {
          ran = true;
          Resume(i);
          if (error_) std::rethrow_exception(error_);
        }
      if (!ran) break;
    }
    if (done_ < fibers_.size()) throw std::logic_error("threads wait for ever: " + Waiting());
    for (size_t i = 0; i < kGuardBytes; ++i)
      if (shared()[shared_bytes_ + i] != kGuard) throw std::logic_error("a write beyond the dynamic shared memory");
  }

  unsigned char* shared() { return reinterpret_cast<unsigned char*>(shared_.data()); }
  Fiber& current() { return fibers_[current_]; }

  void SyncThreads() {
    current().state = State::kAtBarrier;
    ++at_barrier_;
    if (!ReleaseBarrier()) Yield();
  }

  void Collective(const char* name, uint32_t mask, const void* in, void* out, Execute execute) {
    Fiber& me = current();
    const size_t warp = current_ / 32 * 32, lane = current_ - warp;
    if (!(mask >> lane & 1)) Fail("a lane is in a collective whose mask leaves it out");
    me = Entering(me, name, mask, in, out, execute);
    for (size_t other = 0; other < 32; ++other) {
      if (!(mask >> other & 1)) continue;
      if (warp + other >= fibers_.size() || fibers_[warp + other].state == State::kDone)
        throw std::logic_error(std::string(name) + " waits for a lane that is gone");
      const Fiber& peer = fibers_[warp + other];
      if (peer.state != State::kInCollective) return Yield();
      if (peer.execute != execute || peer.mask != mask)
        throw std::logic_error(std::string("lanes of one warp meet in ") + name + " and in " + peer.name);
    }
    const void* ins[32] = {};
    void* outs[32] = {};
    for (size_t other = 0; other < 32; ++other)
      if (mask >> other & 1) {
        ins[other] = fibers_[warp + other].in;
        outs[other] = fibers_[warp + other].out;
        fibers_[warp + other].state = State::kReady;
      }
    execute(mask, ins, outs);
  }

  // What runs on a fiber's stack; never returns.
  void Main() {
    FinishSwitch(nullptr);
    try {
      kernel_();
    } catch (...) {
      error_ = std::current_exception();
    }
    current().state = State::kDone;
    ++done_;
    ReleaseBarrier();
    SwitchOut(/*last=*/true);
  }

 private:
  static Fiber& Entering(Fiber& me, const char* name, uint32_t mask, const void* in, void* out, Execute execute) {
    me.state = State::kInCollective;
    me.name = name;
    me.mask = mask;
    me.in = in;
    me.out = out;
    me.execute = execute;
    return me;
  }

  // A barrier waits for all threads that have not ended.
  bool ReleaseBarrier() {
    if (at_barrier_ == 0 || at_barrier_ + done_ < fibers_.size()) return false;
    at_barrier_ = 0;
    for (Fiber& fiber : fibers_)
      if (fiber.state == State::kAtBarrier) fiber.state = State::kReady;
    return true;
  }

  std::string Waiting() const {
    size_t in_collective = 0, first = 0;
    for (size_t i = fibers_.size(); i-- > 0;)
      if (fibers_[i].state == State::kInCollective) {
        ++in_collective;
        first = i;
      }
    std::string text = std::to_string(at_barrier_) + " at __syncthreads, " + std::to_string(done_) + " ended, " +
                       std::to_string(in_collective) + " in a warp's collective";
    if (in_collective) text += std::string(", thread ") + std::to_string(first) + " in " + fibers_[first].name;
    return text;
  }

  void Yield() { SwitchOut(/*last=*/false); }

  void Resume(size_t i) {
    current_ = i;
    threadIdx = fibers_[i].index;
    StartSwitch(&scheduler_fake_stack_, StackOf(i).bottom(), kStackBytes);
#if defined(__x86_64__)
    AllometrySwitchFiber(&scheduler_, fibers_[i].stack_pointer);
#else
    ::swapcontext(&scheduler_, &fibers_[i].context);
#endif
    FinishSwitch(scheduler_fake_stack_);
  }

  void SwitchOut(bool last) {
    Fiber& me = current();
    StartSwitch(last ? nullptr : &me.fake_stack, scheduler_bottom_, scheduler_bytes_);
#if defined(__x86_64__)
    AllometrySwitchFiber(&me.stack_pointer, scheduler_);
#else
    ::swapcontext(&me.context, &scheduler_);
#endif
    FinishSwitch(me.fake_stack);
  }

  // AddressSanitizer follows which stack is in use, if it is told.
  void StartSwitch([[maybe_unused]] void** save, [[maybe_unused]] const void* bottom, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(save, bottom, bytes);
#endif
  }
  void FinishSwitch([[maybe_unused]] void* saved) {
#if defined(__SANITIZE_ADDRESS__)
    // Told whence it comes only when a fiber begins: that is the scheduler's stack.
    if (saved == nullptr)
      __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom_, &scheduler_bytes_);
    else
      __sanitizer_finish_switch_fiber(saved, nullptr, nullptr);
#endif
  }

  void Prepare(size_t i) {
    char* top = StackOf(i).bottom() + kStackBytes;
#if defined(__SANITIZE_ADDRESS__)  // what ended by an exception or was given up has left its marks
    __asan_unpoison_memory_region(top - kUsableBytes, kUsableBytes);
#endif
#if defined(__x86_64__)
    // Six saved registers, the address that the switch returns to, and one word so that the stack is aligned as after a
    // call.
    void** sp = reinterpret_cast<void**>(top) - 8;
    std::fill(sp, sp + 8, nullptr);
    sp[6] = reinterpret_cast<void*>(&FiberMain);
    fibers_[i].stack_pointer = sp;
#else
    ::getcontext(&fibers_[i].context);
    fibers_[i].context.uc_stack.ss_sp = StackOf(i).bottom();
    fibers_[i].context.uc_stack.ss_size = kStackBytes;
    fibers_[i].context.uc_link = nullptr;
    ::makecontext(&fibers_[i].context, &FiberMain, 0);
    (void)top;
#endif
  }

  const std::function<void()>& kernel_;
  const size_t shared_bytes_;
  std::minstd_rand random_;
  struct alignas(16) Sixteen {
    unsigned char bytes[16];
  };
  std::vector<Sixteen> shared_;
  std::vector<Fiber> fibers_;
  std::vector<size_t> order_;
  size_t current_ = 0, at_barrier_ = 0, done_ = 0;
  std::exception_ptr error_;
#if defined(__x86_64__)
  void* scheduler_ = nullptr;
#else
  ucontext_t scheduler_;
#endif
  void* scheduler_fake_stack_ = nullptr;
  const void* scheduler_bottom_ = nullptr;
  size_t scheduler_bytes_ = 0;
};

void FiberMain() { running->Main(); }

void CheckLaunch(dim3 grid, dim3 block, size_t shared_bytes) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > 1024) Fail("a block has between 1 and 1024 threads");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) Fail("an empty grid");
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) Fail("a grid beyond 2^31 - 1, 65535, 65535 blocks");
  // 163 KiB on devices of compute capability 8.0, 227 on 9.0.
  if (shared_bytes > 163 * 1024) Fail("more dynamic shared memory than an sm_80 has");
}

}  // namespace

void Fail(const char* what) { throw std::logic_error(what); }

void UseOrder(uint64_t seed) { order_seed = seed; }

void Emulate(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel) {
  CheckLaunch(grid, block, shared_bytes);
  // A kernel's shared memory is static here: one launch at a time in the whole process.
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  gridDim = grid;
  blockDim = block;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        Block now(block, shared_bytes, kernel, ++order_seed);
        running = &now;
        now.Run();
      }
}

unsigned char* DynamicShared() { return running->shared(); }
void SyncThreads() { running->SyncThreads(); }

void Collective(const char* name, uint32_t mask, const void* in, void* out, Execute execute) {
  running->Collective(name, mask, in, out, execute);
}

void CopyLater(void* to, const void* from, size_t bytes) {
  Fiber& fiber = running->current();
  std::memset(to, kUnset, bytes);
  fiber.copies.push_back({to, from, bytes, fiber.copy_group});
}
void EndCopyGroup() { ++running->current().copy_group; }
void AwaitCopies(int groups_left) {
  Fiber& fiber = running->current();
  while (!fiber.copies.empty() && fiber.copies.front().group < fiber.copy_group - groups_left) {
    const PendingCopy& copy = fiber.copies.front();
    std::memcpy(copy.to, copy.from, copy.bytes);
    fiber.copies.pop_front();
  }
}

void ExecuteMma(uint32_t, const void* const* in, void* const* out) {
  float a[16][16], b[16][8];
  const auto low = [](uint32_t pair) { return __uint_as_float(pair << 16); };
  const auto high = [](uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); };
  for (unsigned lane = 0; lane < 32; ++lane) {
    const auto& fragment = *static_cast<const MmaIn*>(in[lane]);
    const unsigned group = lane / 4, pair = 2 * (lane % 4);
    for (unsigned r = 0; r < 4; ++r) {
      a[group + r % 2 * 8][pair + r / 2 * 8] = low(fragment.a[r]);
      a[group + r % 2 * 8][pair + r / 2 * 8 + 1] = high(fragment.a[r]);
    }
    for (unsigned r = 0; r < 2; ++r) {
      b[pair + r * 8][group] = low(fragment.b[r]);
      b[pair + r * 8 + 1][group] = high(fragment.b[r]);
    }
  }
  for (unsigned lane = 0; lane < 32; ++lane) {
    float d[4];
    std::memcpy(d, static_cast<const MmaIn*>(in[lane])->c, sizeof d);
    for (unsigned i = 0; i < 4; ++i)
      for (unsigned k = 0; k < 16; ++k) d[i] += a[lane / 4 + i / 2 * 8][k] * b[k][2 * (lane % 4) + i % 2];
    std::memcpy(out[lane], d, sizeof d);
  }
}

}  // namespace allometry::trainer::emulated
