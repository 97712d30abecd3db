#include "worker/supervisor/exit_class.h"

#include <csignal>

#include "gtest/gtest.h"

namespace allometry::worker {
namespace {

ProcessEnd Exited(int code, StopCause cause = StopCause::kNone) {
  ProcessEnd end;
  end.exit_code = code;
  end.cause = cause;
  return end;
}

ProcessEnd Signalled(int signal, StopCause cause = StopCause::kNone) {
  ProcessEnd end;
  end.signal = signal;
  end.cause = cause;
  return end;
}

TEST(ExitClass, FollowsTheContractsTable) {
  EXPECT_EQ(Classify(Exited(0), true), ExitClass::kDone);
  EXPECT_EQ(Classify(Exited(0), false), ExitClass::kCrash);
  EXPECT_EQ(Classify(Exited(40), false), ExitClass::kStopped);
  EXPECT_EQ(Classify(Exited(42), false), ExitClass::kConfigError);
  EXPECT_EQ(Classify(Exited(43), false), ExitClass::kDataError);
  EXPECT_EQ(Classify(Exited(44), false), ExitClass::kDiverged);
  EXPECT_EQ(Classify(Exited(45), false), ExitClass::kOutOfMemory);
  EXPECT_EQ(Classify(Exited(46), false), ExitClass::kPeerLost);
  for (int code : {1, 2, 39, 41, 47, 127, 255}) EXPECT_EQ(Classify(Exited(code), true), ExitClass::kCrash) << code;
  EXPECT_EQ(Classify(Signalled(SIGSEGV), true), ExitClass::kCrash);
}

TEST(ExitClass, OurOwnSignalIsNoCrashButASignalFromElsewhereIs) {
  EXPECT_EQ(Classify(Signalled(SIGTERM, StopCause::kRequest), false), ExitClass::kStopped);
  EXPECT_EQ(Classify(Signalled(SIGKILL, StopCause::kRequest), false), ExitClass::kStopped);
  EXPECT_EQ(Classify(Exited(143, StopCause::kRequest), false), ExitClass::kStopped);
  EXPECT_EQ(Classify(Signalled(SIGKILL), false), ExitClass::kCrash);
  EXPECT_EQ(Classify(Signalled(SIGSEGV, StopCause::kRequest), false), ExitClass::kCrash);
}

TEST(ExitClass, ALimitIsALimitHoweverTheTrainerLeavesUnlessItWasDone) {
  EXPECT_EQ(Classify(Exited(40, StopCause::kTimeLimit), false), ExitClass::kLimit);
  EXPECT_EQ(Classify(Signalled(SIGKILL, StopCause::kMemoryLimit), false), ExitClass::kLimit);
  EXPECT_EQ(Classify(Exited(0, StopCause::kTimeLimit), true), ExitClass::kDone);
}

TEST(ExitClass, TheReasonNamesTheEndAndTheLastLines) {
  ProcessEnd end = Exited(3);
  end.stderr_tail = "no such file";
  EXPECT_EQ(DescribeEnd(end, false), "exit code 3\nno such file");
  EXPECT_EQ(DescribeEnd(Exited(0), false), "exit code 0 without a result event");
  EXPECT_EQ(DescribeEnd(Signalled(11), false), "ended by signal 11");
}

}  // namespace
}  // namespace allometry::worker
