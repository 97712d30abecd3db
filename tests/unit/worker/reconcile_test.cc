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

TEST(Compare, TakesWhatIsNewInOrder) {
  const Changes changes = Compare({}, {New(2, 20), New(1, 10)}, {}, true);
  EXPECT_THAT(changes.take, ElementsAre(2, 1));
  EXPECT_THAT(changes.refuse, IsEmpty());
}

TEST(Compare, DropsWhatIsGoneAndWhatHasAnotherGeneration) {
  const std::vector<HeldAttempt> held{{1, 10, 1}, {2, 20, 1}, {3, 30, 1}};
  const Changes changes = Compare(held, {{2, 20, 1}, {3, 30, 2, false, true}}, {}, true);
  EXPECT_THAT(changes.drop, ElementsAre(1, 3));
  EXPECT_THAT(changes.take, IsEmpty());
}

TEST(Compare, StopsWhatIsToStopAndHandsBackWhatItNeverHad) {
  const Changes changes = Compare({{1, 10, 1}}, {{1, 10, 1, true}, {2, 20, 1, true, true}}, {}, true);
  EXPECT_THAT(changes.stop, ElementsAre(1));
  EXPECT_THAT(changes.refuse, ElementsAre(2));
  EXPECT_THAT(changes.drop, IsEmpty());
}

TEST(Compare, AMessageThatCrossedAnEndRevivesNothing) {
  EXPECT_THAT(Compare({}, {New(1, 10)}, {1}, true).take, IsEmpty());
  EXPECT_THAT(Compare({}, {New(1, 10)}, {1}, false).refuse, IsEmpty());
  EXPECT_THAT(Compare({}, {{2, 20, 1, false, false}}, {}, true).take, IsEmpty()) << "no spec to start it by";
}

TEST(Compare, ADrainingWorkerGivesNewOnesBack) {
  const Changes changes = Compare({{1, 10, 1}}, {{1, 10, 1}, New(2, 20)}, {}, false);
  EXPECT_THAT(changes.take, IsEmpty());
  EXPECT_THAT(changes.refuse, ElementsAre(2));
  EXPECT_THAT(changes.drop, IsEmpty());
}

// Applying the changes leaves exactly what is wanted, and applying them again changes nothing.
TEST(Compare, RandomSetsConvergeInOneStep) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    std::vector<HeldAttempt> held;
    std::vector<WantedAttempt> wanted;
    std::set<RankId> ended, expected;
    for (int64_t id = 1; id <= 8; ++id) {
      if (random() % 3 == 0)
        held.push_back({id, id, 1});
      else if (random() % 5 == 0)
        ended.insert(id);
      if (random() % 2) wanted.push_back(New(id, id));
      if (!wanted.empty() && wanted.back().id == RankId(id) && !ended.count(id)) expected.insert(id);
    }
    Changes changes = Compare(held, wanted, ended, true);
    std::erase_if(held, [&](const HeldAttempt& a) { return std::ranges::count(changes.drop, a.id) > 0; });
    for (RankId id : changes.take) held.push_back({id, id.attempt_id, 1});
    std::set<RankId> now;
    for (const auto& attempt : held) EXPECT_TRUE(now.insert(attempt.id).second);
    EXPECT_EQ(now, expected);
    changes = Compare(held, wanted, ended, true);
    EXPECT_THAT(changes.take, IsEmpty());
    EXPECT_THAT(changes.drop, IsEmpty());
  }
}

TEST(Startable, OneASlotAndNoneOfABusyRun) {
  const std::vector<HeldAttempt> waiting{{1, 10, 1}, {2, 20, 1}, {3, 20, 1}, {4, 40, 1}, {5, 50, 1}};
  EXPECT_THAT(Startable(waiting, {{10, 9}}, 2), ElementsAre(2, 4));
  EXPECT_THAT(Startable(waiting, {{10, 9}, {20, 8}}, 5), ElementsAre(4, 5));
  EXPECT_THAT(Startable(waiting, {}, 0), IsEmpty());
}

TEST(Startable, RanksOfOneAttemptRunSideBySide) {
  const std::vector<HeldAttempt> waiting{{{2, 0}, 10, 1}, {{2, 1}, 10, 1}, {{3, 1}, 10, 1}};
  EXPECT_THAT(Startable(waiting, {}, 5), ElementsAre(RankId(2, 0), RankId(2, 1)));
  EXPECT_THAT(Startable(waiting, {{10, 2}}, 1), ElementsAre(RankId(2, 0)));
  EXPECT_THAT(Startable(waiting, {{10, 1}}, 5), IsEmpty()) << "a rank of an earlier attempt is still dying";
}

TEST(Compare, RanksAreHeldOneByOne) {
  const WantedAttempt second{{1, 1}, 10, 1, false, true};
  const Changes changes = Compare({{{1, 0}, 10, 1}, {{1, 2}, 10, 1}}, {New(1, 10), second}, {}, true);
  EXPECT_THAT(changes.take, ElementsAre(RankId(1, 1)));
  EXPECT_THAT(changes.drop, ElementsAre(RankId(1, 2)));
}

}  // namespace
}  // namespace allometry::worker
