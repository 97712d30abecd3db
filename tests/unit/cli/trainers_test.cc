#include "cli/trainers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace allometry::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Trainers, SplitsAsAShellDoes) {
  EXPECT_THAT(*SplitCommand("a  b 'c d' e\"f g\"h ''"), ElementsAre("a", "b", "c d", "ef gh", ""));
  EXPECT_THAT(SplitCommand("a 'b").error().message, HasSubstr("closing"));
}

TEST(Trainers, MakesFilesAbsoluteAndLeavesProgramsToThePath) {
  const std::string script = std::string(ALLOMETRY_SOURCE_DIR) + "/examples/../examples/trainers/ngram.py";
  const auto trainers = ParseTrainers({"ngram=python3 " + script + " --flag"});
  ASSERT_TRUE(trainers.ok()) << trainers.error().message;
  EXPECT_THAT(trainers->at("ngram"),
              ElementsAre("python3", std::string(ALLOMETRY_SOURCE_DIR) + "/examples/trainers/ngram.py", "--flag"));
}

TEST(Trainers, RefusesWhatHasNoNameOrCommand) {
  EXPECT_THAT(ParseTrainers({"ngram.py"}).error().message, HasSubstr("NAME=COMMAND"));
  EXPECT_THAT(ParseTrainers({"=x"}).error().message, HasSubstr("NAME=COMMAND"));
  EXPECT_THAT(ParseTrainers({"ngram="}).error().message, HasSubstr("no command"));
}

}  // namespace
}  // namespace allometry::cli
