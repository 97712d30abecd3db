#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace allometry::trainer {

// The words behind a verb of `allo-trainer data`. An option takes one value, or all words up to the next option, or
// none. Not thread-safe.
class DataOptions {
 public:
  enum class Takes { kNothing, kOne, kSome };
  // kInvalidArgument names the word that is wrong; `positions`: how many words that are no options there must be.
  static common::Result<DataOptions> Parse(const std::vector<std::string>& words,
                                           const std::map<std::string, Takes>& known, size_t positions);

  bool Has(const std::string& option) const { return values_.contains(option); }
  std::string Text(const std::string& option, const std::string& otherwise) const;
  std::vector<std::string> Texts(const std::string& option) const;
  const std::string& position(size_t i) const { return positions_[i]; }
  // kInvalidArgument: not a number, or out of its range.
  common::Result<int64_t> Integer(const std::string& option, int64_t otherwise, int64_t least, int64_t most) const;
  common::Result<double> Number(const std::string& option, double otherwise, double least, double most) const;

 private:
  std::map<std::string, std::vector<std::string>> values_;
  std::vector<std::string> positions_;
};

}  // namespace allometry::trainer
