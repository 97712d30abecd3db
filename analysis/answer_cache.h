#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

namespace allometry::analysis {

// Answers by the bytes of their question, the ones used last. A question names all that its answer depends on: the
// request, and the version of the data (records::DataVersion). Thread-safe.
class AnswerCache {
 public:
  // Questions and answers together take no more than `most_bytes`, but for the bookkeeping of about 200 bytes each.
  explicit AnswerCache(size_t most_bytes) : most_bytes_(most_bytes) {}

  // Null when there is none.
  std::shared_ptr<const std::string> Find(const std::string& question);
  // Replaces an older answer; one that is larger than all that may be kept is not kept.
  void Put(const std::string& question, std::string answer);

 private:
  struct Entry {
    std::string question;
    std::shared_ptr<const std::string> answer;
    size_t bytes() const { return question.size() + answer->size(); }
  };

  void Remove(std::list<Entry>::iterator entry);

  const size_t most_bytes_;
  std::mutex mutex_;
  size_t bytes_ = 0;
  std::list<Entry> entries_;  // used last first
  std::unordered_map<std::string_view, std::list<Entry>::iterator> by_question_;
};

}  // namespace allometry::analysis
