#include "worker/daemon/reconcile.h"

#include <algorithm>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace allometry::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

WantedAttempt New(int64_t attempt_id, int64_t run_id) { return {attempt_id, run_id, 1, false, true}; }

TEST(Compare, StartsWhatIsNewWhileSlotsAreFree) {
  const Changes changes = Compare({}, {New(1, 10), New(2, 20), New(3, 30)}, {}, 2, true);
  EXPECT_THAT(changes.start, ElementsAre(1, 2));
  EXPECT_THAT(changes.refuse, IsEmpty());
}

TEST(Compare, DropsWhatIsGoneAndWhatHasAnotherGeneration) {
  const std::vector<HeldAttempt> held{{1, 10, 1}, {2, 20, 1}, {3, 30, 1}};
  const Changes changes = Compare(held, {{2, 20, 1}, {3, 30, 2, false, true}}, {}, 5, true);
  EXPECT_THAT(changes.drop, ElementsAre(1, 3));
  EXPECT_THAT(changes.start, IsEmpty()) << "the run of attempt 3 is still busy";
}

TEST(Compare, StopsWhatIsToStopAndHandsBackWhatItNeverHad) {
  const Changes changes = Compare({{1, 10, 1}}, {{1, 10, 1, true}, {2, 20, 1, true, true}}, {}, 5, true);
  EXPECT_THAT(changes.stop, ElementsAre(1));
  EXPECT_THAT(changes.refuse, ElementsAre(2));
  EXPECT_THAT(changes.drop, IsEmpty());
}

TEST(Compare, AMessageThatCrossedAnEndRevivesNothing) {
  EXPECT_THAT(Compare({}, {New(1, 10)}, {1}, 5, true).start, IsEmpty());
  EXPECT_THAT(Compare({}, {{2, 20, 1, false, false}}, {}, 5, true).start, IsEmpty()) << "no spec to start it by";
}

TEST(Compare, ANewAttemptOfABusyRunWaitsForItsDirectory) {
  const Changes changes = Compare({{1, 10, 1}}, {New(2, 10)}, {}, 5, true);
  EXPECT_THAT(changes.drop, ElementsAre(1));
  EXPECT_THAT(changes.start, IsEmpty());
}

TEST(Compare, ADrainingWorkerGivesNewOnesBack) {
  const Changes changes = Compare({{1, 10, 1}}, {{1, 10, 1}, New(2, 20)}, {}, 5, false);
  EXPECT_THAT(changes.start, IsEmpty());
  EXPECT_THAT(changes.refuse, ElementsAre(2));
  EXPECT_THAT(changes.drop, IsEmpty());
}

TEST(Compare, RandomSetsConvergeAndNeverShareARunOrExceedSlots) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    std::vector<HeldAttempt> held;
    std::vector<WantedAttempt> wanted;
    std::set<int64_t> ended;
    for (int64_t id = 1; id <= 8; ++id) {
      const auto run = static_cast<int64_t>(random() % 6);
      bool run_held = false;
      for (const auto& attempt : held) run_held |= attempt.run_id == run;
      const bool is_held = random() % 3 == 0 && !run_held;
      if (is_held) held.push_back({id, run, 1});
      else if (random() % 5 == 0) ended.insert(id);
      if (random() % 2) wanted.push_back({id, run, 1, random() % 4 == 0, random() % 4 != 0});
    }
    const int free_slots = static_cast<int>(random() % 3);
    const Changes changes = Compare(held, wanted, ended, free_slots, true);
    EXPECT_LE(static_cast<int>(changes.start.size()), free_slots);
    std::multiset<int64_t> runs;
    for (const auto& attempt : held) runs.insert(attempt.run_id);
    for (const auto& attempt : wanted) {
      const bool started = std::count(changes.start.begin(), changes.start.end(), attempt.attempt_id) > 0;
      if (started) runs.insert(attempt.run_id);
      EXPECT_FALSE(started && ended.count(attempt.attempt_id));
    }
    for (int64_t run : runs) EXPECT_EQ(runs.count(run), 1u);
  }
}

}  // namespace
}  // namespace allometry::worker
