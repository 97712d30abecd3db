#include "worker/trainer/data/document_builder.h"

#include <algorithm>

namespace allometry::trainer {

void DocumentBuilder::AddText(std::string_view raw) {
  bool replaced = false;
  const std::string valid = ValidUtf8(raw, &replaced);
  counts_->replaced_lines += replaced;
  for (auto at = valid.begin(); at != valid.end();) {
    at = std::find_if_not(at, valid.end(), IsBlank);
    const auto end = std::find_if(at, valid.end(), IsBlank);
    if (at == end) break;
    if (!text_.empty()) text_ += ' ';
    text_.append(at, end);
    ++words_;
    at = end;
  }
}

common::Status DocumentBuilder::Finish() {
  if (text_.empty()) return common::Ok();
  ++counts_->documents;
  counts_->words += words_;
  counts_->text_bytes += static_cast<int64_t>(text_.size());
  const common::Status status = sink_(text_);
  Drop();
  return status;
}

common::Status DocumentBuilder::FinishRow() {
  counts_->empty_rows += text_.empty();
  return Finish();
}

void DocumentBuilder::Drop() {
  text_.clear();
  words_ = 0;
}

common::Status DocumentBuilder::CutIfTooLong() {
  if (text_.size() <= kMaxDocumentBytes) return common::Ok();
  ++counts_->cut_documents;
  return Finish();
}

}  // namespace allometry::trainer
