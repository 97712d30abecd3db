// Fits on several threads, small enough for the thread sanitizer.

#include <gtest/gtest.h>

#include <atomic>

#include "analysis/laws.h"
#include "analysis/laws_json.h"
#include "analysis/parallel.h"
#include "law_points.h"

namespace allometry::analysis {
namespace {

TEST(LawThreads, EveryIndexIsWorkedOnOnce) {
  std::vector<std::atomic<int>> visits(1000);
  ParallelFor(visits.size(), 7, [&](size_t i) { ++visits[i]; });
  for (const std::atomic<int>& count : visits) EXPECT_EQ(count, 1);
  ParallelFor(0, 3, [](size_t) { FAIL(); });
}

TEST(LawThreads, TheirNumberChangesNothing) {
  const std::vector<LawPoint> runs = MadeUpRuns(0.004, 4);
  for (LawForm form : {LawForm::kTied, LawForm::kCompute}) {
    LawOptions options{.replicates = 50, .threads = 1};
    const std::string one = ToJson(FitLaw(form, runs, options).value()).dump();
    options.threads = 5;
    EXPECT_EQ(ToJson(FitLaw(form, runs, options).value()).dump(), one) << LawFormName(form);
  }
}

}  // namespace
}  // namespace allometry::analysis
