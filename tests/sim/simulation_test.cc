#include "tests/sim/simulation.h"

#include <gtest/gtest.h>

#include <ostream>

namespace allometry::sim {
namespace {

using scheduler::TestHooks;

constexpr uint64_t kSeeds = 200;
constexpr uint64_t kShards = 8;  // so that they may run side by side

class SimulationTest : public ::testing::TestWithParam<uint64_t> {};

TEST_P(SimulationTest, TheInvariantsHold) {
  Outcome total;
  for (uint64_t seed = 1 + GetParam(); seed <= kSeeds; seed += kShards) {
    const Outcome outcome = Simulate(seed, {});
    ASSERT_EQ(outcome.violation, "") << "seed " << seed;
    // A seed in which nothing happened would show nothing.
    EXPECT_GT(outcome.done, 0) << "seed " << seed;
    total.attempts += outcome.attempts;
    total.chunks += outcome.chunks;
    total.failed += outcome.failed;
  }
  EXPECT_GT(total.failed, 0);
  EXPECT_GT(total.chunks, 0);
  RecordProperty("attempts", static_cast<int>(total.attempts));
}

INSTANTIATE_TEST_SUITE_P(Seeds, SimulationTest, ::testing::Range(uint64_t{0}, kShards));

TEST(Simulation, IsAFunctionOfItsSeed) {
  const Outcome first = Simulate(17, {}), again = Simulate(17, {});
  EXPECT_EQ(first.attempts, again.attempts);
  EXPECT_EQ(first.chunks, again.chunks);
}

struct Mutant {
  const char* name;
  bool TestHooks::*hook;
};
void PrintTo(const Mutant& mutant, std::ostream* out) { *out << mutant.name; }

class MutantTest : public ::testing::TestWithParam<Mutant> {};

TEST_P(MutantTest, IsCaught) {
  TestHooks hooks;
  hooks.*GetParam().hook = true;
  for (uint64_t seed = kSeeds; seed > 0; --seed) {  // any order would do; this one finds them all soon
    const Outcome outcome = Simulate(seed, hooks);
    if (outcome.violation.empty()) continue;
    RecordProperty("seed", static_cast<int>(seed));
    std::cout << GetParam().name << " caught by seed " << seed << ": " << outcome.violation << "\n";
    return;
  }
  FAIL() << "no seed catches " << GetParam().name;
}

INSTANTIATE_TEST_SUITE_P(All, MutantTest,
                         ::testing::Values(Mutant{"skip_generation_check", &TestHooks::skip_generation_check},
                                           Mutant{"reply_before_commit", &TestHooks::reply_before_commit},
                                           Mutant{"ignore_dependencies", &TestHooks::ignore_dependencies},
                                           Mutant{"skip_budget_charge", &TestHooks::skip_budget_charge},
                                           Mutant{"lease_twice", &TestHooks::lease_twice},
                                           Mutant{"ignore_retry_limit", &TestHooks::ignore_retry_limit},
                                           Mutant{"ignore_backoff", &TestHooks::ignore_backoff},
                                           Mutant{"accept_twice", &TestHooks::accept_twice},
                                           Mutant{"never_expire", &TestHooks::never_expire},
                                           Mutant{"lease_cancelled", &TestHooks::lease_cancelled},
                                           Mutant{"part_of_a_gang", &TestHooks::part_of_a_gang},
                                           Mutant{"ignore_lost_rank", &TestHooks::ignore_lost_rank},
                                           Mutant{"overfill_devices", &TestHooks::overfill_devices}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace allometry::sim
