// Builds that are killed, by SIGKILL, at every place at which they might be.
#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <map>

#include "tests/unit/trainer_data/data_fixture.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

struct Ended {
  int exit_code = -1, signal = 0;
  std::string errors;
};

class BuildKillTest : public DataFixture {
 protected:
  void SetUp() override {
    DataFixture::SetUp();
    Write("in/a.txt", MadeUpText(1'000, 40, 1));
    Write("in/b.txt", MadeUpText(800, 40, 2) + MadeUpText(150, 40, 1));
  }

  // `allo-trainer data build` into `out` as a process of its own. `file_bytes` above 0: no file may be larger, which is
  // what a full disk is to a writer. `interrupt_at`: what its progress says when it gets SIGINT.
  Ended Build(const std::string& out, const std::string& fault_point, rlim_t file_bytes = 0,
              const std::string& vocabulary = "300", const char* interrupt_at = nullptr) {
    int errors[2];
    EXPECT_EQ(::pipe(errors), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::setenv("ALLOMETRY_FAULT_POINT", fault_point.c_str(), 1);
      ::dup2(errors[1], STDERR_FILENO);
      ::close(errors[0]);
      ::close(errors[1]);
      ::close(STDOUT_FILENO);
      if (file_bytes > 0) {
        const rlimit limit{file_bytes, file_bytes};
        std::signal(SIGXFSZ, SIG_IGN);
        ::setrlimit(RLIMIT_FSIZE, &limit);
      }
      ::execl(ALLOMETRY_DATA_MAIN, "data", "build", "--in", (dir_ / "in").c_str(), "--out", (dir_ / out).c_str(),
              "--vocabulary", vocabulary.c_str(), "--threads", "2", "--shard-tokens", "20000", "--validation-fraction",
              "0.2", nullptr);
      ::_exit(127);
    }
    ::close(errors[1]);
    Ended ended;
    char buffer[4096];
    for (ssize_t n; (n = ::read(errors[0], buffer, sizeof buffer)) > 0;) {
      ended.errors.append(buffer, static_cast<size_t>(n));
      if (!interrupt_at || ended.errors.find(interrupt_at) == std::string::npos) continue;
      ::kill(child, SIGINT);
      interrupt_at = nullptr;
    }
    ::close(errors[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    if (WIFEXITED(status)) ended.exit_code = WEXITSTATUS(status);
    if (WIFSIGNALED(status)) ended.signal = WTERMSIG(status);
    return ended;
  }

  std::map<std::string, std::string> Contents(const std::string& name) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(dir_ / name))
      if (entry.is_regular_file()) files[fs::relative(entry.path(), dir_ / name)] = ReadAll(entry.path());
    return files;
  }

  // Builds into `out`, which was begun, and expects the bytes of an uninterrupted build.
  void FinishesAs(const std::string& out, const std::map<std::string, std::string>& whole) {
    const Ended ended = Build(out, "");
    ASSERT_EQ(ended.exit_code, 0) << ended.errors;
    EXPECT_EQ(Contents(out), whole);
    EXPECT_FALSE(fs::exists(dir_ / (out + ".partial")));
  }
};

TEST_F(BuildKillTest, AKilledBuildGoesOnToTheSameBytes) {
  ASSERT_EQ(Build("whole", "").exit_code, 0);
  const auto whole = Contents("whole");
  ASSERT_TRUE(whole.contains("train-00002.tokens")) << "several shards";
  int deaths = 0;
  for (const char* point : {"trainer.data_stage", "trainer.data_batch", "trainer.data_written"}) {
    for (int arrival = 1;; ++arrival) {
      const std::string out = std::string(point) + std::to_string(arrival);
      const Ended ended = Build(out, std::string(point) + ":" + std::to_string(arrival));
      if (ended.signal != SIGKILL) {
        EXPECT_EQ(ended.exit_code, 0) << ended.errors;
        break;
      }
      ++deaths;
      EXPECT_FALSE(fs::exists(dir_ / out)) << "nothing half-written has the name";
      FinishesAs(out, whole);
    }
  }
  EXPECT_GT(deaths, 4);
}

TEST_F(BuildKillTest, ABuildThatIsKilledAgainAndAgainFinishes) {
  ASSERT_EQ(Build("whole", "").exit_code, 0);
  int deaths = 0;
  while (Build("out", "trainer.data_stage").signal == SIGKILL)
    ASSERT_LT(++deaths, 50) << "each attempt gets one stage further";
  EXPECT_GT(deaths, 2);
  EXPECT_EQ(Contents("out"), Contents("whole"));
}

TEST_F(BuildKillTest, WhatAFinishedStageFoundIsNotReadAgain) {
  ASSERT_EQ(Build("out", "trainer.data_stage:2").signal, SIGKILL);
  const Ended ended = Build("out", "");
  EXPECT_EQ(ended.exit_code, 0);
  EXPECT_THAT(ended.errors, ::testing::Not(HasSubstr("read ")));
  EXPECT_THAT(ended.errors, ::testing::Not(HasSubstr("train tokenizer")));
  EXPECT_THAT(ended.errors, HasSubstr("tokenize"));
}

TEST_F(BuildKillTest, AnotherRecipeDoesNotGoOnWithIt) {
  ASSERT_EQ(Build("out", "trainer.data_stage").signal, SIGKILL);
  const Ended other = Build("out", "", 0, "310");
  EXPECT_EQ(other.exit_code, 5);
  EXPECT_THAT(other.errors, HasSubstr("out.partial' is the unfinished build of other files or options: remove it"));
  Write("in/c.txt", "one more file\n");
  EXPECT_EQ(Build("out", "").exit_code, 5) << "the input has changed";
  fs::remove(dir_ / "in/c.txt");
  EXPECT_EQ(Build("out", "").exit_code, 0);
}

TEST_F(BuildKillTest, AnInterruptEndsItAtOnceAndItGoesOn) {
  ASSERT_EQ(Build("whole", "").exit_code, 0);
  for (const char* stage : {"hash", "read", "train tokenizer"}) {
    const Ended ended = Build("out", "", 0, "300", stage);
    EXPECT_EQ(ended.exit_code, 130) << ended.errors;
    EXPECT_THAT(ended.errors, HasSubstr("\nstopped; the same command goes on where it was\n"));
  }
  FinishesAs("out", Contents("whole"));
}

TEST_F(BuildKillTest, AFullDiskIsSaidAndTheBuildGoesOn) {
  ASSERT_EQ(Build("whole", "").exit_code, 0);
  for (const rlim_t bytes : {rlim_t{100}, rlim_t{2'000}, rlim_t{30'000}}) {
    const std::string out = "out" + std::to_string(bytes);
    const Ended full = Build(out, "", bytes);
    EXPECT_EQ(full.exit_code, 7) << full.errors;
    EXPECT_THAT(full.errors, HasSubstr("make room and give the same command again"));
    FinishesAs(out, Contents("whole"));
  }
}

}  // namespace
}  // namespace allometry::trainer
