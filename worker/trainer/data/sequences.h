#pragma once

#include <cstdint>
#include <vector>

#include "worker/trainer/data/token_file.h"

namespace allometry::trainer {

// How documents become sequences: one after the other with their end marks between, wherever a document ends, or each
// document by itself and without its end mark, so that a sequence never holds two.
enum class Join { kEndMark, kNone };

// A text cut into sequences of `raw` tokens, which can be found in any order. Joined documents give whole sequences
// only. A document by itself gives as many as it has, the last one as short as it comes; a rest of one token, of which
// no objective can make inputs and targets, is left out. Immutable and thread-safe.
class Sequences {
 public:
  // Reads the whole index of documents once if they are not joined. raw >= 2.
  Sequences(TokenFile text, Join join, int64_t raw);

  int64_t size() const { return size_; }
  int64_t left_out() const { return left_out_; }  // tokens of text that are in no sequence

  // Tokens of sequence i into `out`, which is resized to 2 … raw. Time: constant for joined documents, else that of a
  // binary search.
  void Read(int64_t i, std::vector<int32_t>* out) const;

 private:
  int64_t DocumentTokens(int64_t document) const;  // without the end mark
  int64_t CountOf(int64_t document) const;         // its sequences
  TokenFile text_;
  Join join_;
  int64_t raw_, size_ = 0, left_out_ = 0;
  // Sequences before each block of documents; a number for every document would be much memory at web scale.
  std::vector<int64_t> before_block_;
};

}  // namespace allometry::trainer
