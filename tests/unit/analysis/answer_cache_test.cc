#include "analysis/answer_cache.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace allometry::analysis {
namespace {

TEST(AnswerCache, GivesBackWhatWasPutLast) {
  AnswerCache cache(100);
  EXPECT_EQ(cache.Find("q"), nullptr);
  cache.Put("q", "one");
  const auto first = cache.Find("q");
  cache.Put("q", "two");
  EXPECT_EQ(*cache.Find("q"), "two");
  EXPECT_EQ(*first, "one") << "who holds an answer keeps it";
}

TEST(AnswerCache, BeyondItsBytesTheOnesUsedLongestAgoGo) {
  AnswerCache cache(10);
  cache.Put("a", "1234");  // five bytes each
  cache.Put("b", "1234");
  EXPECT_NE(cache.Find("a"), nullptr);
  cache.Put("c", "1234");
  EXPECT_EQ(cache.Find("b"), nullptr);
  EXPECT_NE(cache.Find("a"), nullptr);
  cache.Put("d", "too much to keep");
  EXPECT_EQ(cache.Find("d"), nullptr);
  EXPECT_NE(cache.Find("a"), nullptr) << "and nothing went for it";
  cache.Put("a", "an answer of its own that does not fit either");
  EXPECT_EQ(cache.Find("a"), nullptr) << "the old answer is no longer true";
}

TEST(AnswerCache, ServesManyThreads) {
  AnswerCache cache(1000);
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&cache] {
      for (int i = 0; i < 2'000; ++i) {
        const std::string question = std::to_string(i % 50);
        if (const auto answer = cache.Find(question)) {
          EXPECT_EQ(*answer, "answer " + question);
        }
        cache.Put(question, "answer " + question);
      }
    });
  }
}

}  // namespace
}  // namespace allometry::analysis
