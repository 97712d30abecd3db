#include "worker/trainer/data/sequences.h"

#include <algorithm>

namespace allometry::trainer {

namespace {
constexpr int64_t kBlockDocuments = 64;
}

Sequences::Sequences(TokenFile text, Join join, int64_t raw) : text_(std::move(text)), join_(join), raw_(raw) {
  if (join == Join::kEndMark) {
    size_ = text_.tokens() / raw;
    left_out_ = text_.tokens() % raw;
    return;
  }
  for (int64_t d = 0; d < text_.documents(); ++d) {
    if (d % kBlockDocuments == 0) before_block_.push_back(size_);
    size_ += CountOf(d);
    left_out_ += DocumentTokens(d) % raw == 1;
  }
}

int64_t Sequences::DocumentTokens(int64_t document) const {
  return text_.Offset(document + 1) - text_.Offset(document) - 1;
}

int64_t Sequences::CountOf(int64_t document) const {
  const int64_t tokens = DocumentTokens(document);
  return tokens / raw_ + (tokens % raw_ >= 2);
}

void Sequences::Read(int64_t i, std::vector<int32_t>* out) const {
  if (join_ == Join::kEndMark) {
    out->resize(static_cast<size_t>(raw_));
    return text_.Read(i * raw_, *out);
  }
  const auto block = std::ranges::upper_bound(before_block_, i) - before_block_.begin() - 1;
  int64_t document = block * kBlockDocuments;
  i -= before_block_[static_cast<size_t>(block)];
  while (i >= CountOf(document)) i -= CountOf(document++);
  out->resize(static_cast<size_t>(std::min(raw_, DocumentTokens(document) - i * raw_)));
  text_.Read(text_.Offset(document) + i * raw_, *out);
}

}  // namespace allometry::trainer
