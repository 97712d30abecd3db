#include "worker/trainer/distributed/nccl_collective.h"

#include <ATen/ATen.h>
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>

#include "tests/unit/distributed/ranks.h"

namespace allometry::trainer {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr milliseconds kLong(600'000);

// The stub stands in for NCCL's library; tensors are on the CPU, which has no streams.
class NcclStub : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { ::setenv("ALLOMETRY_NCCL", ALLOMETRY_NCCL_STUB, 1); }
  void SetUp() override {
    handle_ = ::dlopen(ALLOMETRY_NCCL_STUB, RTLD_NOW | RTLD_LOCAL);
    ASSERT_TRUE(handle_) << ::dlerror();
    SetError(0);
  }
  void SetError(int code) { reinterpret_cast<void (*)(int)>(::dlsym(handle_, "StubSetAsyncError"))(code); }
  int Aborts() { return reinterpret_cast<int (*)()>(::dlsym(handle_, "StubAborts"))(); }

  void OnNccl(int ranks, const std::function<void(NcclCollective&)>& f,
              const std::function<std::string()>& lost = nullptr) {
    const std::string id = NewNcclId();
    OnRanks(ranks, [&](int rank) {
      NcclCollective collective(id, rank, ranks, at::kCPU, lost, kLong);
      f(collective);
      collective.AllReduce(at::zeros({1}));  // nobody leaves before all have done
    });
  }

  void* handle_ = nullptr;
};

TEST_F(NcclStub, EveryCallDoesWhatTheInterfaceSays) {
  OnNccl(3, [](NcclCollective& c) {
    const double r = c.rank();
    for (const auto type : {at::kFloat, at::kDouble, at::kLong}) {
      const at::Tensor tensor = at::full({2, 5}, r + 1, type);
      c.AllReduce(tensor);
      EXPECT_TRUE(at::equal(tensor, at::full({2, 5}, 6, type)));
    }
    const Bounds bounds{0, 4, 4, 7};  // rank 1's part is empty
    at::Tensor flat = at::full({7}, r + 1);
    c.ReduceScatter(flat, bounds);
    if (c.rank() == 0) EXPECT_TRUE(at::equal(flat.narrow(0, 0, 4), at::full({4}, 6.0)));
    if (c.rank() == 2) EXPECT_TRUE(at::equal(flat.narrow(0, 4, 3), at::full({3}, 6.0)));
    flat = at::full({7}, r);
    c.AllGather(flat, bounds);
    EXPECT_TRUE(at::equal(flat, at::tensor({0.f, 0.f, 0.f, 0.f, 2.f, 2.f, 2.f})));
    const at::Tensor half = at::full({3}, r, at::kBFloat16);
    c.Broadcast(half, 1);
    EXPECT_TRUE(at::equal(half, at::ones({3}, at::kBFloat16)));
    const at::Tensor received = c.AllToAll((at::arange(3, at::kLong) * 10 + c.rank() * 100).view({3, 1}).contiguous());
    EXPECT_TRUE(at::equal(received.view({3}), at::arange(3, at::kLong) * 100 + 10 * c.rank()));
  });
}

TEST_F(NcclStub, AnErrorOfTheDeviceIsAPeerLost) {
  const int before = Aborts();
  try {
    OnNccl(2, [&](NcclCollective& c) {
      if (c.rank() == 0) SetError(6);
      for (int i = 0; i < 1'000'000; ++i) c.Check(), std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
    FAIL() << "nobody noticed";
  } catch (const PeerLost& lost) {
    EXPECT_THAT(lost.what(), HasSubstr("remote process exited"));
  }
  EXPECT_GE(Aborts() - before, 2);
}

// NCCL ends an abort only when no graph holds a call any more: whose graphs they are must hear of the error before
// that.
TEST_F(NcclStub, AnAbortThatWaitsForGraphsKeepsNobody) {
  const auto hold = reinterpret_cast<void (*)(int)>(::dlsym(handle_, "StubHoldGraphs"));
  struct Graphs {
    explicit Graphs(void (*f)(int)) : hold(f) { hold(1); }
    ~Graphs() { hold(0); }
    void (*hold)(int);
  };
  try {
    OnNccl(2, [&](NcclCollective& c) {
      const Graphs graphs(hold);
      if (c.rank() == 0) SetError(6);
      for (int i = 0; i < 1'000'000; ++i) c.Check(), std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
    FAIL() << "nobody noticed";
  } catch (const PeerLost& lost) {
    EXPECT_THAT(lost.what(), HasSubstr("remote process exited"));
  }
}

// What is on the device and does not end is aborted, and told as another rank's silence; what ends is not.
TEST_F(NcclStub, AnExchangeThatDoesNotEndIsATimeout) {
  const int before = Aborts();
  const std::string id = NewNcclId();
  OnRanks(2, [&](int rank) {
    NcclCollective collective(id, rank, 2, at::kCPU, nullptr, std::chrono::seconds(5));
    std::atomic<int> asked = 0;
    collective.WatchUntil([&] { return ++asked >= 2; });
    while (asked < 2) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    collective.Check();
    if (rank == 1) collective.WatchUntil([] { return false; });
    try {
      for (int i = 0; i < 1'000'000; ++i) {
        if (rank == 1) collective.Check();
        if (rank == 0 && Aborts() > before) return;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      FAIL() << "nobody noticed";
    } catch (const CollectiveTimeout& silent) {
      EXPECT_EQ(rank, 1);
      EXPECT_THAT(silent.what(), HasSubstr("an exchange with the other ranks has not come to its end within 5 s"));
    }
  });
}

// A lost device may never let NCCL end: a rank that leaves does not wait for it for ever.
TEST_F(NcclStub, AnAbortThatNeverEndsIsLeft) {
  const auto hold = reinterpret_cast<void (*)(int)>(::dlsym(handle_, "StubHoldGraphs"));
  ::testing::internal::CaptureStderr();
  const std::string id = NewNcclId();
  OnRanks(2, [&](int rank) {
    NcclCollective collective(id, rank, 2, at::kCPU, nullptr, std::chrono::seconds(5));
    hold(1);
    collective.AllReduce(at::ones({1}));
  });
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("does not end, and is left"));
  hold(0);
}

// The device of this rank may be broken: that is no word on the others.
TEST_F(NcclStub, AnErrorOfCudasOwnIsThisRanks) {
  try {
    OnNccl(2, [&](NcclCollective& c) {
      if (c.rank() == 0) SetError(1);
      for (int i = 0; i < 1'000'000; ++i) c.Check(), std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
    FAIL() << "nobody noticed";
  } catch (const PeerLost& lost) {
    FAIL() << lost.what();
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), HasSubstr("NCCL reports: unhandled cuda error"));
  }
}

// A rank that waits in NCCL for one that is gone is woken, though NCCL itself reports nothing.
TEST_F(NcclStub, ALostPeerEndsACallThatWaits) {
  std::atomic<bool> gone{false};
  try {
    OnNccl(
        2,
        [&](NcclCollective& c) {
          if (c.rank() == 1) {
            gone = true;
            throw PeerLost("I leave");
          }
          for (int i = 0; i < 1'000'000; ++i) c.Check(), std::this_thread::sleep_for(std::chrono::milliseconds(1));
        },
        [&] { return gone ? std::string("rank 1 is gone: it closed its connection") : std::string(); });
    FAIL() << "nobody noticed";
  } catch (const PeerLost& lost) {
    EXPECT_THAT(lost.what(), HasSubstr("rank 1 is gone"));
  }
}

// One of two ranks never comes to the meeting: whoever waits for it is told so, after its patience or when the other
// one is seen to be gone, and leaves no communicator behind.
TEST_F(NcclStub, ARankThatNeverComesIsAPeerLost) {
  const int before = Aborts();
  try {
    const NcclCollective collective(NewNcclId(), 0, 2, at::kCPU, nullptr, milliseconds(50));
    FAIL() << "nobody came";
  } catch (const CollectiveTimeout& lost) {
    EXPECT_THAT(lost.what(), HasSubstr("ncclCommInitRankConfig has not come to its end"));
  }
  EXPECT_EQ(Aborts() - before, 1);
  try {
    const NcclCollective collective(
        NewNcclId(), 0, 2, at::kCPU, [] { return "rank 1 is gone"; }, kLong);
    FAIL() << "nobody came";
  } catch (const PeerLost& lost) {
    EXPECT_THAT(lost.what(), HasSubstr("rank 1 is gone"));
  }
  EXPECT_EQ(Aborts() - before, 2);
}

}  // namespace
}  // namespace allometry::trainer
