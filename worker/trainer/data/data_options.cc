#include "worker/trainer/data/data_options.h"

#include <charconv>

#include "common/ids.h"

namespace allometry::trainer {
namespace {

common::Error Unknown(const std::string& word, const std::map<std::string, DataOptions::Takes>& known) {
  std::vector<std::string> names;
  for (const auto& [name, takes] : known) names.push_back(name);
  const std::string near = common::NearestName(word, names);
  return common::InvalidArgument("no option is called '" + word + "'" +
                                 (near.empty() ? "" : "; did you mean '" + near + "'?"));
}

std::string Plain(double value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  return {text, end};
}

template <typename T>
common::Result<T> Parsed(const std::string& option, const std::string& text, T least, T most) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && value >= least && value <= most) return value;
  return common::InvalidArgument(option + " is '" + text + "'; it takes a number from " +
                                 Plain(static_cast<double>(least)) + " to " + Plain(static_cast<double>(most)));
}

}  // namespace

common::Result<DataOptions> DataOptions::Parse(const std::vector<std::string>& words,
                                               const std::map<std::string, Takes>& known, size_t positions) {
  DataOptions options;
  for (size_t i = 0; i < words.size(); ++i) {
    if (!words[i].starts_with('-')) {
      options.positions_.push_back(words[i]);
      continue;
    }
    const auto takes = known.find(words[i]);
    if (takes == known.end()) return Unknown(words[i], known);
    std::vector<std::string>& values = options.values_[words[i]];
    const size_t most = takes->second == Takes::kNothing ? 0 : takes->second == Takes::kOne ? 1 : words.size();
    const size_t before = values.size();
    while (values.size() - before < most && i + 1 < words.size() && !words[i + 1].starts_with('-'))
      values.push_back(words[++i]);
    if (most > 0 && values.size() == before) return common::InvalidArgument(takes->first + " has no value");
  }
  if (options.positions_.size() > positions)
    return common::InvalidArgument("'" + options.positions_[positions] + "' is no option");
  if (options.positions_.size() < positions) return common::InvalidArgument("the folder is missing");
  return options;
}

std::string DataOptions::Text(const std::string& option, const std::string& otherwise) const {
  return Has(option) ? values_.at(option).back() : otherwise;
}

std::vector<std::string> DataOptions::Texts(const std::string& option) const {
  return Has(option) ? values_.at(option) : std::vector<std::string>();
}

common::Result<int64_t> DataOptions::Integer(const std::string& option, int64_t otherwise, int64_t least,
                                             int64_t most) const {
  return Has(option) ? Parsed(option, values_.at(option).back(), least, most) : otherwise;
}

common::Result<double> DataOptions::Number(const std::string& option, double otherwise, double least,
                                           double most) const {
  return Has(option) ? Parsed(option, values_.at(option).back(), least, most) : otherwise;
}

}  // namespace allometry::trainer
