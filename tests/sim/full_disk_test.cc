#include "tests/sim/full_disk_vfs.h"
#include "tests/unit/core/core_fixture.h"

namespace allometry::coordinator {
namespace {

using common::ErrorCode;
using sim::FullDiskVfs;

// A sweep from submission to its end on a disk that is full from the n-th write on. Whoever gets an error makes room
// and asks again. There must be no crash, and nothing that was acknowledged may be lost, not even by a restart right
// after.
class FullDiskTest : public CoreFixture {
 protected:
  bool OpenOnce() {
    core_.reset();
    store::Store::Options options;
    options.vfs = FullDiskVfs::Name();
    options.durable = false;
    auto store = store::Store::Open(Database(), options);
    if (!store) return Refused(store.error());
    CoreOptions core_options;
    core_options.now_boot_ms = [this] { return now_ms_; };
    core_options.now_unix_ms = [this] { return now_ms_; };
    core_options.has_blob = [](const std::string&) { return true; };
    auto core = Core::Open(std::move(store).value(), core_options, this);
    if (!core) return Refused(core.error());
    core_ = std::move(core).value();
    return true;
  }

  void OpenAgain() {
    for (int i = 0; i < 3 && !OpenOnce(); ++i) FullDiskVfs::MakeRoom();
    ASSERT_NE(core_, nullptr);
  }

  static bool Refused(const common::Error& error) {
    EXPECT_TRUE(FullDiskVfs::WasFull()) << error.message;
    EXPECT_TRUE(error.code == ErrorCode::kResourceExhausted || error.code == ErrorCode::kUnavailable) << error.message;
    EXPECT_NE(error.message.find("disk"), std::string::npos) << error.message;
    return false;
  }

  // Asks until it is answered, with room after the first refusal.
  template <typename Ask>
  auto Insist(Ask ask) {
    auto reply = ask();
    for (int i = 0; i < 3 && !reply.ok(); ++i) {
      Refused(reply.error());
      FullDiskVfs::MakeRoom();
      reply = ask();
    }
    EXPECT_TRUE(reply.ok()) << reply.error().message;
    return reply;
  }

  // Gives what the sweep did on the way; true if the disk filled up.
  bool RunWithRoomFor(int64_t writes) {
    std::filesystem::remove_all(folder_ / "data");
    std::filesystem::create_directory(folder_ / "data");
    orders_.clear();
    numbers_.clear();
    FullDiskVfs::FillAtWrite(writes);
    OpenAgain();
    (void)Insist([&] { return Submit(SubmitOf("s"), SmallSweep()); });
    v1::RegisterRequest registration;
    registration.set_worker_uuid("u");
    registration.set_protocol_min(1);
    registration.set_protocol_max(3);
    registration.set_slots(1);
    registration.add_trainers("builtin");
    const int64_t worker =
        Insist([&] { return Call<v1::RegisterResponse>(&Core::Register, registration); })->worker_id();
    uuids_[worker] = "u";
    for (int run = 0; run < 3; ++run) {
      (void)Insist([&] { return Sync(worker, 10); });
      if (orders_[worker].desired_size() != 1) return ADD_FAILURE() << "no lease", true;
      const v1::FinishRequest finish = FinishOf(worker);
      EXPECT_TRUE(Insist([&] { return Finish(finish); })->accepted());
      OpenAgain();  // the process dies after the answer
      EXPECT_EQ(core_->Get("s")->done(), run + 1) << "with room for " << writes << " writes";
    }
    EXPECT_EQ(core_->Get("s")->state(), v1::SWEEP_STATE_FINISHED);
    const bool was_full = FullDiskVfs::WasFull();
    core_.reset();
    FullDiskVfs::MakeRoom();
    return was_full;
  }

  std::filesystem::path Database() const { return folder_ / "data" / "allometry.db"; }
};

TEST_F(FullDiskTest, NothingAcknowledgedIsLostWhereverTheDiskFillsUp) {
  int64_t writes = 1;
  while (RunWithRoomFor(writes) && !HasFailure()) ++writes;
  EXPECT_GT(writes, 50);
  RecordProperty("writes", static_cast<int>(writes));
}

}  // namespace
}  // namespace allometry::coordinator
