#include "common/fault_point.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>

namespace allometry::common {
namespace {

// The variable is read once a process, so each case plans in a process of its own.
class FaultPointTest : public ::testing::Test {
 protected:
  FaultPointTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

// Arrives at one.place and other.place in turn, and then ends with the number of rounds that were survived.
[[noreturn]] void Live(const char* plan, int rounds) {
  plan == nullptr ? ::unsetenv("ALLOMETRY_FAULT_POINT") : ::setenv("ALLOMETRY_FAULT_POINT", plan, 1);
  for (int i = 0; i < rounds; ++i) {
    FaultPoint("one.place");
    FaultPoint("other.place");
  }
  std::_Exit(rounds);
}

TEST_F(FaultPointTest, KillsAtTheFirstArrival) {
  EXPECT_EXIT(Live("other.place", 1), ::testing::KilledBySignal(SIGKILL), "dies at fault point other.place");
}

TEST_F(FaultPointTest, KillsAtTheArrivalThatIsNamedAndNotBefore) {
  EXPECT_EXIT(Live("one.place:3", 2), ::testing::ExitedWithCode(2), "");
  EXPECT_EXIT(Live("one.place:3", 3), ::testing::KilledBySignal(SIGKILL), "dies at fault point one.place");
}

TEST_F(FaultPointTest, LeavesAllOthersAlone) {
  EXPECT_EXIT(Live(nullptr, 3), ::testing::ExitedWithCode(3), "");
  EXPECT_EXIT(Live("", 3), ::testing::ExitedWithCode(3), "");
  EXPECT_EXIT(Live("one.plac", 3), ::testing::ExitedWithCode(3), "");
  EXPECT_EXIT(Live("one.place.too", 3), ::testing::ExitedWithCode(3), "");
}

}  // namespace
}  // namespace allometry::common
