#include "worker/trainer/data/data_tools.h"

#include <gmock/gmock.h>

#include "tests/unit/trainer_data/data_fixture.h"
#include "worker/trainer/data/prepare.h"

namespace allometry::trainer {
namespace {

using ::testing::HasSubstr;

class DataToolsTest : public DataFixture {
 protected:
  // What `allo-trainer data <arguments>` returns and prints on both streams.
  static std::pair<int, std::string> Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "data");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    const int code = DataMain(static_cast<int>(arguments.size()), argv.data());
    std::fflush(nullptr);
    return {code, ::testing::internal::GetCapturedStdout() + ::testing::internal::GetCapturedStderr()};
  }
};

TEST_F(DataToolsTest, ShowPrintsSizesTextAndACorruptedExample) {
  const common::Json run = TextRun(Write("text.txt", MadeUpText(400, 30, 1)), 500);
  ASSERT_TRUE(Prepare(run, execution_, dir_ / "data", nullptr).ok());
  const auto [code, text] = Run({"show", (dir_ / "data").string(), "--input-length", "64"});
  EXPECT_EQ(code, 0);
  EXPECT_THAT(text, HasSubstr("400 pieces"));
  EXPECT_THAT(text, HasSubstr("400 documents, 12000 words; 0 exact duplicates"));
  EXPECT_THAT(text, HasSubstr("into 64 inputs"));
  const size_t targets = text.find("targets: <extra_id_0>");
  ASSERT_NE(targets, std::string::npos) << text;
  EXPECT_NE(text.find("</s>", targets), std::string::npos);
}

TEST_F(DataToolsTest, MistakesAreExplained) {
  EXPECT_THAT(Run({}).second, HasSubstr("allo-trainer data show DIR"));
  EXPECT_EQ(Run({}).first, 2);
  EXPECT_EQ(Run({"--help"}).first, 0);
  const auto [code, text] = Run({"show", (dir_ / "absent").string()});
  EXPECT_EQ(code, 3) << "not found";
  EXPECT_THAT(text, HasSubstr("absent"));
}

}  // namespace
}  // namespace allometry::trainer
