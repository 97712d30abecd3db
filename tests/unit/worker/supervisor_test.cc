#include "worker/supervisor/supervisor.h"

#include <sys/wait.h>

#include <csignal>
#include <fstream>

#include "common/files.h"
#include "gtest/gtest.h"
#include "tests/unit/worker/scratch.h"
#include "worker/supervisor/spawn.h"

namespace allometry::worker {
namespace {

// A zombie counts as gone: whoever inherits an orphan may take its time to reap it.
bool Gone(pid_t pid) {
  auto stat = common::ReadFile("/proc/" + std::to_string(pid) + "/stat");
  if (!stat) return true;
  const size_t at = stat->rfind(')');
  return at == std::string::npos || stat->substr(at, 4).find('Z') != std::string::npos;
}

pid_t PidIn(const std::filesystem::path& path) {
  auto text = common::ReadFile(path);
  return text && text->find('\n') != std::string::npos ? static_cast<pid_t>(std::stol(*text)) : 0;
}

class SupervisorTest : public ::testing::Test {
 protected:
  TrainerSpec Shell(const std::string& script) {
    TrainerSpec spec;
    spec.command = {"/bin/sh", "-c", script};
    spec.run_directory = scratch_.path();
    spec.stdout_path = scratch_ / "stdout.log";
    spec.stderr_path = scratch_ / "stderr.log";
    return spec;
  }
  ProcessEnd Run(const TrainerSpec& spec) {
    auto id = supervisor_.Start(spec);
    if (!id) throw std::runtime_error(id.error().message);
    return supervisor_.Wait(*id);
  }
  std::string Text(const std::string& name) {
    auto text = common::ReadFile(scratch_ / name);
    return text ? *text : "(no file)";
  }
  Scratch scratch_;
  Supervisor supervisor_;
};

TEST_F(SupervisorTest, ReportsTheExitCodeAndKeepsBothStreams) {
  ProcessEnd end = Run(Shell("echo out; echo err >&2; exit 42"));
  EXPECT_EQ(end.exit_code, 42);
  EXPECT_EQ(end.signal, 0);
  EXPECT_EQ(end.cause, StopCause::kNone);
  EXPECT_EQ(end.stderr_tail, "err");
  EXPECT_EQ(Text("stdout.log"), "out\n");
  EXPECT_EQ(Text("stderr.log"), "err\n");
}

TEST_F(SupervisorTest, ReportsASignal) {
  ProcessEnd end = Run(Shell("kill -SEGV $$"));
  EXPECT_EQ(end.signal, SIGSEGV);
  EXPECT_EQ(end.exit_code, -1);
}

TEST_F(SupervisorTest, StartsInTheRunDirectoryWithTheEnvironmentAsked) {
  TrainerSpec spec = Shell("pwd -P; echo $ALLOMETRY_CONTRACT; cat; ls /proc/self/fd | wc -l");
  spec.environment = {{"ALLOMETRY_CONTRACT", "1"}};
  EXPECT_EQ(Run(spec).exit_code, 0);
  // Descriptors of `ls`: 0, 1, 2 and the folder it lists; none of this process's.
  EXPECT_EQ(Text("stdout.log"), std::filesystem::canonical(scratch_.path()).string() + "\n1\n4\n");
}

TEST_F(SupervisorTest, AProgramThatCannotStartIsAnErrorThatNamesIt) {
  TrainerSpec spec = Shell("");
  spec.command = {"/no/such/trainer"};
  auto id = supervisor_.Start(spec);
  ASSERT_FALSE(id.ok());
  EXPECT_NE(id.error().message.find("/no/such/trainer"), std::string::npos);
  spec = Shell("exit 0");
  spec.run_directory = scratch_ / "absent";
  EXPECT_FALSE(supervisor_.Start(spec).ok());
}

TEST_F(SupervisorTest, SigtermReachesTheTrainerWhichMayLeaveWithItsOwnCode) {
  auto id = supervisor_.Start(Shell("trap 'exit 40' TERM; echo $$ > ready; while :; do sleep 0.05; done"));
  ASSERT_TRUE(id.ok());
  ASSERT_TRUE(Eventually([&] { return PidIn(scratch_ / "ready") != 0; }));
  supervisor_.Stop(*id);
  ProcessEnd end = supervisor_.Wait(*id);
  EXPECT_EQ(end.exit_code, 40);
  EXPECT_EQ(end.cause, StopCause::kRequest);
}

TEST_F(SupervisorTest, AStubbornGroupIsKilledAfterTheGracePeriodGrandchildrenToo) {
  TrainerSpec spec = Shell(
      "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > grandchild; while :; do sleep 0.05; done' & "
      "while :; do sleep 0.05; done");
  spec.grace_ms = 200;
  auto id = supervisor_.Start(spec);
  ASSERT_TRUE(id.ok());
  ASSERT_TRUE(Eventually([&] { return PidIn(scratch_ / "grandchild") != 0; }));
  supervisor_.Stop(*id);
  ProcessEnd end = supervisor_.Wait(*id);
  EXPECT_EQ(end.signal, SIGKILL);
  EXPECT_EQ(Classify(end, false), ExitClass::kStopped);
  EXPECT_TRUE(Eventually([&] { return Gone(PidIn(scratch_ / "grandchild")); }));
}

TEST_F(SupervisorTest, WhatATrainerLeavesBehindDiesWithIt) {
  ProcessEnd end = Run(Shell("sleep 1000 & echo $! > left; exit 0"));
  EXPECT_EQ(end.exit_code, 0);
  EXPECT_TRUE(Eventually([&] { return Gone(PidIn(scratch_ / "left")); }));
}

TEST_F(SupervisorTest, TheTimeLimitStopsAndIsNamed) {
  TrainerSpec spec = Shell("trap 'exit 40' TERM; while :; do sleep 0.05; done");
  spec.limit_seconds = 1;
  ProcessEnd end = Run(spec);
  EXPECT_EQ(end.cause, StopCause::kTimeLimit);
  EXPECT_EQ(Classify(end, false), ExitClass::kLimit);
  EXPECT_GE(end.seconds, 1.0);
}

TEST_F(SupervisorTest, TheMemoryLimitKillsTheGroup) {
  TrainerSpec spec = Shell("x=$(head -c 100000000 /dev/zero | tr '\\0' x); while :; do sleep 0.05; done");
  spec.limit_memory_bytes = 50'000'000;
  ProcessEnd end = Run(spec);
  EXPECT_EQ(end.cause, StopCause::kMemoryLimit);
  EXPECT_GT(end.peak_rss_bytes, 50'000'000);
}

TEST_F(SupervisorTest, ALogIsCappedWithItsEndKept) {
  TrainerSpec spec = Shell("i=0; while [ $i -lt 20000 ]; do echo line$i; i=$((i+1)); done; echo the end");
  spec.log_cap_bytes = 1000;
  EXPECT_EQ(Run(spec).exit_code, 0);
  const std::string text = Text("stdout.log");
  EXPECT_LT(text.size(), 70'000u);
  EXPECT_EQ(text.rfind("line0\nline1\n", 0), 0u);
  EXPECT_NE(text.find("bytes left out"), std::string::npos);
  EXPECT_EQ(text.substr(text.size() - 8), "the end\n");
}

TEST_F(SupervisorTest, TheReasonIsTheLastTwentyLines) {
  ProcessEnd end = Run(Shell("for i in $(seq 1 100); do echo e$i >&2; done; exit 1"));
  EXPECT_EQ(end.stderr_tail.substr(0, 4), "e81\n");
  EXPECT_EQ(end.stderr_tail.substr(end.stderr_tail.size() - 4), "e100");
}

TEST_F(SupervisorTest, RunsManyAtOnce) {
  std::vector<Supervisor::TrainerId> ids;
  for (int i = 0; i < 8; ++i) {
    TrainerSpec spec = Shell("exit " + std::to_string(i));
    spec.stdout_path = scratch_ / ("out" + std::to_string(i));
    spec.stderr_path = scratch_ / ("err" + std::to_string(i));
    auto id = supervisor_.Start(spec);
    ASSERT_TRUE(id.ok());
    ids.push_back(*id);
  }
  for (int i = 0; i < 8; ++i) EXPECT_EQ(supervisor_.Wait(ids[static_cast<size_t>(i)]).exit_code, i);
}

TEST(SupervisorLifetime, TheDestructorKillsWhatRuns) {
  Scratch scratch;
  pid_t pid = 0;
  {
    Supervisor supervisor;
    TrainerSpec spec{{"/bin/sleep", "1000"}, scratch.path(), {}, scratch / "o", scratch / "e"};
    auto id = supervisor.Start(spec);
    ASSERT_TRUE(id.ok());
    pid = supervisor.PidOf(*id);
    ASSERT_FALSE(Gone(pid));
  }
  EXPECT_TRUE(Gone(pid));
}

TEST(SupervisorLifetime, ATrainerDiesWithItsWorker) {
  Scratch scratch;
  const pid_t worker = ::fork();
  ASSERT_GE(worker, 0);
  if (worker == 0) {
    Supervisor supervisor;
    TrainerSpec spec{
        {"/bin/sh", "-c", "echo $$ > trainer; exec sleep 1000"}, scratch.path(), {}, scratch / "o", scratch / "e"};
    if (!supervisor.Start(spec)) ::_exit(1);
    for (;;) ::pause();
  }
  const bool started = Eventually([&] { return PidIn(scratch / "trainer") != 0; });
  const pid_t trainer = PidIn(scratch / "trainer");
  const bool ran = started && !Gone(trainer);
  ::kill(worker, SIGKILL);
  ::waitpid(worker, nullptr, 0);
  ASSERT_TRUE(ran);
  EXPECT_TRUE(Eventually([&] { return Gone(trainer); }));
}

}  // namespace
}  // namespace allometry::worker
