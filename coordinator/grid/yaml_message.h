#pragma once

#include <google/protobuf/message.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

// YAML onto a protobuf message by its descriptor: keys are field names, lists are repeated fields, a scalar in place of
// a message stands for that message's first field, a google.protobuf.Struct takes any map. Thread-safe.
namespace allometry::coordinator {

// Integers up to here are exact as doubles, which is what a number of a file is read as: 2^53.
inline constexpr double kLargestExactInteger = 9007199254740992.0;

// Something wrong in a file; lines count from 1.
struct YamlProblem {
  int line = 0;
  std::string message;
};

// Where each field that was given stands: "pretraining.optimizer.name", "sizes[2].d_model".
using FieldLines = std::map<std::string, int>;

struct YamlReading {
  std::vector<YamlProblem> problems;  // every one of the file, in its order; empty: the message is filled in
  FieldLines lines;
};

// Unknown and duplicate keys, wrong types, empty values and numbers out of the field's type are problems; 2e3 is an
// integer.
YamlReading ReadYamlMessage(std::string_view text, google::protobuf::Message* message);

// The line of a field, or of the nearest given field around it; 1 when there is none.
int LineOf(const FieldLines& lines, std::string path);

}  // namespace allometry::coordinator
