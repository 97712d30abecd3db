#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/result.h"
#include "worker/trainer/data/corpus.h"

namespace allometry::trainer {

// No document is longer: one that is gets cut, and counted, so that memory stays bounded.
inline constexpr size_t kMaxDocumentBytes = 64 << 20;

inline bool IsBlank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Collects the texts of one document, as UTF-8 with white space collapsed, and hands it over. Not thread-safe.
class DocumentBuilder {
 public:
  DocumentBuilder(const DocumentSink& sink, CorpusCounts* counts) : sink_(sink), counts_(counts) {}

  // A line, or several: white space of any kind is a blank, and so is the border between two calls.
  void AddText(std::string_view raw);
  // Hands over what was collected, if it is anything, and begins anew.
  common::Status Finish();
  // As Finish, where nothing collected is a row without text, which is counted.
  common::Status FinishRow();
  // Forgets what was collected.
  void Drop();
  // Finish and count, if the document has reached the longest that may be.
  common::Status CutIfTooLong();

 private:
  const DocumentSink& sink_;
  CorpusCounts* counts_;
  std::string text_;
  int64_t words_ = 0;
};

}  // namespace allometry::trainer
