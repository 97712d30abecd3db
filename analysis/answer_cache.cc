#include "analysis/answer_cache.h"

namespace allometry::analysis {

std::shared_ptr<const std::string> AnswerCache::Find(const std::string& question) {
  const std::lock_guard lock(mutex_);
  const auto found = by_question_.find(question);
  if (found == by_question_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->answer;
}

void AnswerCache::Put(const std::string& question, std::string answer) {
  Entry entry{question, std::make_shared<const std::string>(std::move(answer))};
  const std::lock_guard lock(mutex_);
  if (const auto older = by_question_.find(question); older != by_question_.end()) Remove(older->second);
  if (entry.bytes() > most_bytes_) return;
  bytes_ += entry.bytes();
  entries_.push_front(std::move(entry));
  by_question_[entries_.front().question] = entries_.begin();
  while (bytes_ > most_bytes_) Remove(std::prev(entries_.end()));
}

void AnswerCache::Remove(std::list<Entry>::iterator entry) {
  bytes_ -= entry->bytes();
  by_question_.erase(entry->question);
  entries_.erase(entry);
}

}  // namespace allometry::analysis
