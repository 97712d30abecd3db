#include "worker/trainer/engine/events.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <fstream>
#include <sstream>

#include "tests/unit/engine/temporary_folder.h"

namespace allometry::trainer {
namespace {

std::string ContentOf(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(EventsTest, WritesOneObjectALine) {
  TemporaryFolder folder;
  auto writer = EventWriter::Open(folder / "events");
  ASSERT_TRUE(writer);
  ASSERT_TRUE(writer->Write({{"event", "progress"}, {"step", 1}}));
  ASSERT_TRUE(writer->Metric(2, {{"train/loss", std::nan("")}, {"b", INFINITY}, {"c", -INFINITY}, {"d", 0.1}}));
  EXPECT_EQ(
      ContentOf(folder / "events"),
      "{\"event\":\"progress\",\"step\":1}\n"
      "{\"event\":\"metric\",\"step\":2,\"values\":{\"b\":\"inf\",\"c\":\"-inf\",\"d\":0.1,\"train/loss\":\"nan\"}}\n");
}

TEST(EventsTest, EndsATornLineOfAnEarlierAttempt) {
  TemporaryFolder folder;
  std::ofstream(folder / "events") << "{\"event\":\"start\"}\n{\"event\":\"prog";
  ASSERT_TRUE(EventWriter::Open(folder / "events")->Write({{"event", "start"}}));
  EXPECT_EQ(ContentOf(folder / "events"), "{\"event\":\"start\"}\n{\"event\":\"prog\n{\"event\":\"start\"}\n");
}

TEST(EventsTest, RefusesALineOverOneMebibyte) {
  TemporaryFolder folder;
  auto writer = EventWriter::Open(folder / "events");
  EXPECT_FALSE(writer->Write({{"text", std::string(1 << 20, 'x')}}).ok());
  EXPECT_EQ(ContentOf(folder / "events"), "");
}

TEST(EventsTest, AFailedWriteLeavesNoHalfLine) {
  TemporaryFolder folder;
  auto writer = EventWriter::Open(folder / "events");
  ASSERT_TRUE(writer->Write({{"a", std::string(80, 'x')}}));
  const std::string before = ContentOf(folder / "events");
  rlimit old{};
  ::getrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit tight{100, old.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &tight);
  const bool ok = writer->Write({{"b", std::string(80, 'y')}}).ok();
  ::setrlimit(RLIMIT_FSIZE, &old);
  EXPECT_FALSE(ok);
  EXPECT_EQ(ContentOf(folder / "events"), before);
  ASSERT_TRUE(writer->Write({{"c", 1}}));
  EXPECT_EQ(ContentOf(folder / "events"), before + "{\"c\":1}\n");
}

TEST(EventsTest, AnEmptyPathMeansNowhere) {
  auto writer = EventWriter::Open("");
  ASSERT_TRUE(writer);
  EXPECT_TRUE(writer->Write({{"event", "start"}}));
}

TEST(EventsTest, AnUnwritablePathIsAnError) {
  TemporaryFolder folder;
  EXPECT_FALSE(EventWriter::Open(folder / "missing/events").ok());
}

}  // namespace
}  // namespace allometry::trainer
