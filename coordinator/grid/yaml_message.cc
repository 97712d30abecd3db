#include "coordinator/grid/yaml_message.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/struct.pb.h>
#include <yaml-cpp/yaml.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include "common/ids.h"

namespace allometry::coordinator {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Anchors can make a small file an endless or enormous tree.
constexpr int kMaxDepth = 64;
constexpr int kMaxNodes = 1'000'000;

bool IsPlain(const YAML::Node& node) { return node.Tag() != "!"; }  // quoted scalars carry this tag
bool HasNoValue(const YAML::Node& node) {
  return node.IsNull() || (node.IsScalar() && IsPlain(node) && (node.Scalar() == "~" || node.Scalar() == "null"));
}

std::optional<double> ToDouble(const std::string& text) {
  double value = 0;
  const char* begin = text.data() + (text.size() > 1 && text[0] == '+');
  const auto [end, error] = std::from_chars(begin, text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

template <typename Integer>
std::optional<Integer> ToInteger(const std::string& text) {
  Integer value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) return value;
  const std::optional<double> number = ToDouble(text);  // 2e3, 1.5e4
  if (!number || *number != std::floor(*number) || std::abs(*number) > kLargestExactInteger) return std::nullopt;
  if (std::is_unsigned_v<Integer> && *number < 0) return std::nullopt;
  return static_cast<Integer>(*number);
}

std::string Shown(const YAML::Node& node) {
  if (node.IsMap()) return "a map";
  if (node.IsSequence()) return "a list";
  return "'" + node.Scalar() + "'";
}

const char* Expected(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return "a text";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return "a number";
    case FieldDescriptor::CPPTYPE_UINT64:
      return "an integer that is not negative";
    default:
      return "an integer";
  }
}

bool IsStruct(const Descriptor& type) { return type.full_name() == "google.protobuf.Struct"; }

class Reader {
 public:
  explicit Reader(YamlReading* reading) : reading_(reading) {}

  void ReadMessage(const YAML::Node& node, const std::string& path, Message* message) {
    const Descriptor& type = *message->GetDescriptor();
    if (!Count(node)) return;
    if (IsStruct(type)) return ReadStructField(node, path, message);
    if (node.IsScalar()) return ReadField(node, *type.field(0), Join(path, type.field(0)->name()), message);
    if (!node.IsMap()) return Report(node, path + " is " + Shown(node) + "; it takes a map of " + Keys(type));
    std::set<std::string> seen;
    for (const auto& entry : node) ReadEntry(entry.first, entry.second, path, &seen, message);
  }

 private:
  static std::string Join(const std::string& path, const std::string& name) {
    return path.empty() ? name : path + "." + name;
  }

  static std::vector<std::string> FieldNames(const Descriptor& type) {
    std::vector<std::string> names;
    for (int i = 0; i < type.field_count(); ++i) names.push_back(type.field(i)->name());
    return names;
  }

  static std::string Keys(const Descriptor& type) {
    std::string text;
    for (const std::string& name : FieldNames(type)) text += (text.empty() ? "" : ", ") + name;
    return text;
  }

  void Report(const YAML::Node& node, std::string message) {
    reading_->problems.push_back({node.Mark().line + 1, std::move(message)});
  }

  bool Count(const YAML::Node& node) {
    if (++nodes_ == kMaxNodes) Report(node, "the file has more than a million values");
    return nodes_ < kMaxNodes;
  }

  // The key's text, or nothing when it cannot be one or came before.
  bool TakeKey(const YAML::Node& key, const std::string& path, std::set<std::string>* seen) {
    const std::string where = path.empty() ? "" : " in " + path;
    if (!key.IsScalar()) return Report(key, "a key" + where + " is " + Shown(key) + "; keys are names"), false;
    if (seen->insert(key.Scalar()).second) return true;
    Report(key, "duplicate key '" + key.Scalar() + "'" + where);
    return false;
  }

  void ReadEntry(const YAML::Node& key, const YAML::Node& value, const std::string& path, std::set<std::string>* seen,
                 Message* message) {
    if (!TakeKey(key, path, seen)) return;
    const Descriptor& type = *message->GetDescriptor();
    const FieldDescriptor* field = type.FindFieldByName(key.Scalar());
    if (!field) return ReportUnknown(key, path, type);
    const std::string field_path = Join(path, field->name());
    reading_->lines.emplace(field_path, key.Mark().line + 1);
    if (HasNoValue(value)) return Report(key, field_path + " has no value; give one or delete the key");
    if (field->is_map()) return ReadMap(value, *field, field_path, message);
    if (field->is_repeated()) return ReadList(value, *field, field_path, message);
    ReadField(value, *field, field_path, message);
  }

  void ReportUnknown(const YAML::Node& key, const std::string& path, const Descriptor& type) {
    std::string text = "unknown key '" + key.Scalar() + "'" + (path.empty() ? "" : " in " + path);
    const std::string near = common::NearestName(key.Scalar(), FieldNames(type));
    if (!near.empty()) text += "; did you mean '" + near + "'?";
    Report(key, text + (near.empty() ? "; allowed: " : " Allowed: ") + Keys(type));
  }

  void ReadList(const YAML::Node& node, const FieldDescriptor& field, const std::string& path, Message* message) {
    if (!node.IsSequence())
      return Report(node, path + " is " + Shown(node) + "; it takes a list, as in [" +
                              (node.IsScalar() ? node.Scalar() : "...") + "]");
    if (node.size() == 0) return Report(node, path + " is an empty list; give a value or delete the key");
    int index = 0;
    for (const YAML::Node& item : node) {
      const std::string item_path = path + "[" + std::to_string(index++) + "]";
      reading_->lines.emplace(item_path, item.Mark().line + 1);
      HasNoValue(item) ? Report(item, item_path + " has no value") : ReadField(item, field, item_path, message);
    }
  }

  void ReadMap(const YAML::Node& node, const FieldDescriptor& field, const std::string& path, Message* message) {
    if (!node.IsMap()) return Report(node, path + " is " + Shown(node) + "; it takes a map of names to texts");
    std::set<std::string> seen;
    for (const auto& entry : node) {
      if (!TakeKey(entry.first, path, &seen)) continue;
      if (!Count(entry.second)) return;
      const std::string item_path = Join(path, entry.first.Scalar());
      reading_->lines.emplace(item_path, entry.first.Mark().line + 1);
      if (!entry.second.IsScalar()) {
        Report(entry.first, item_path + " must be a text");
        continue;
      }
      Message* item = message->GetReflection()->AddMessage(message, &field);
      const Descriptor& type = *item->GetDescriptor();
      item->GetReflection()->SetString(item, type.map_key(), entry.first.Scalar());
      item->GetReflection()->SetString(item, type.map_value(), entry.second.Scalar());
    }
  }

  void ReadField(const YAML::Node& node, const FieldDescriptor& field, const std::string& path, Message* message) {
    if (!Count(node)) return;
    const auto* reflection = message->GetReflection();
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE)
      return ReadMessage(
          node, path,
          field.is_repeated() ? reflection->AddMessage(message, &field) : reflection->MutableMessage(message, &field));
    if (!node.IsScalar() || !SetScalar(node, field, message))
      Report(node, path + " is " + Shown(node) + "; it must be " + Expected(field));
  }

  bool SetScalar(const YAML::Node& node, const FieldDescriptor& field, Message* message) {
    const std::string& text = node.Scalar();
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) return !text.empty() && Put(text, field, message);
    if (!IsPlain(node)) return false;
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_BOOL:
        return (text == "true" || text == "false") && Put(text == "true", field, message);
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return PutIf(ToDouble(text), field, message);
      case FieldDescriptor::CPPTYPE_INT64:
        return PutIf(ToInteger<int64_t>(text), field, message);
      case FieldDescriptor::CPPTYPE_UINT64:
        return PutIf(ToInteger<uint64_t>(text), field, message);
      default:
        throw std::logic_error("a sweep has no fields of this type: " + field.full_name());
    }
  }

  template <typename T>
  static bool PutIf(const std::optional<T>& value, const FieldDescriptor& field, Message* message) {
    return value && Put(*value, field, message);
  }
  static bool Put(const std::string& value, const FieldDescriptor& field, Message* m) {
    field.is_repeated() ? m->GetReflection()->AddString(m, &field, value)
                        : m->GetReflection()->SetString(m, &field, value);
    return true;
  }
  static bool Put(bool value, const FieldDescriptor& field, Message* m) {
    m->GetReflection()->SetBool(m, &field, value);
    return true;
  }
  static bool Put(double value, const FieldDescriptor& field, Message* m) {
    m->GetReflection()->SetDouble(m, &field, value);
    return true;
  }
  static bool Put(int64_t value, const FieldDescriptor& field, Message* m) {
    field.is_repeated() ? m->GetReflection()->AddInt64(m, &field, value)
                        : m->GetReflection()->SetInt64(m, &field, value);
    return true;
  }
  static bool Put(uint64_t value, const FieldDescriptor& field, Message* m) {
    field.is_repeated() ? m->GetReflection()->AddUInt64(m, &field, value)
                        : m->GetReflection()->SetUInt64(m, &field, value);
    return true;
  }

  void ReadStructField(const YAML::Node& node, const std::string& path, Message* message) {
    if (!node.IsMap()) return Report(node, path + " is " + Shown(node) + "; it takes a map of names to values");
    ReadStruct(node, path, 0, static_cast<google::protobuf::Struct*>(message));
  }

  void ReadStruct(const YAML::Node& node, const std::string& path, int depth, google::protobuf::Struct* out) {
    std::set<std::string> seen;
    for (const auto& entry : node) {
      if (!TakeKey(entry.first, path, &seen)) continue;
      const std::string item_path = Join(path, entry.first.Scalar());
      reading_->lines.emplace(item_path, entry.first.Mark().line + 1);
      ReadValue(entry.second, item_path, depth + 1, &(*out->mutable_fields())[entry.first.Scalar()]);
    }
  }

  void ReadValue(const YAML::Node& node, const std::string& path, int depth, google::protobuf::Value* out) {
    if (depth > kMaxDepth) return Report(node, path + " is nested more than 64 deep");
    if (!Count(node)) return;
    if (node.IsMap()) return ReadStruct(node, path, depth, out->mutable_struct_value());
    if (node.IsSequence()) {
      out->mutable_list_value();
      for (const YAML::Node& item : node) ReadValue(item, path, depth + 1, out->mutable_list_value()->add_values());
      return;
    }
    if (HasNoValue(node)) return out->set_null_value(google::protobuf::NULL_VALUE);
    const std::string& text = node.Scalar();
    if (IsPlain(node) && (text == "true" || text == "false")) return out->set_bool_value(text == "true");
    const std::optional<double> number = IsPlain(node) ? ToDouble(text) : std::nullopt;
    number ? out->set_number_value(*number) : out->set_string_value(text);
  }

  YamlReading* reading_;
  int nodes_ = 0;
};

std::optional<YAML::Node> LoadOne(std::string_view text, YamlReading* reading) {
  try {
    std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (documents.size() == 1 && documents[0].IsMap()) return documents[0];
    const bool empty = documents.empty() || (documents.size() == 1 && documents[0].IsNull());
    reading->problems.push_back({1, empty                  ? "the file is empty"
                                    : documents.size() > 1 ? "the file holds several YAML documents; give one"
                                                           : "the file is not a map of keys to values"});
  } catch (const YAML::Exception& error) {
    reading->problems.push_back({std::max(error.mark.line, 0) + 1, "not valid YAML: " + error.msg});
  }
  return std::nullopt;
}

}  // namespace

YamlReading ReadYamlMessage(std::string_view text, Message* message) {
  YamlReading reading;
  if (const std::optional<YAML::Node> root = LoadOne(text, &reading)) Reader(&reading).ReadMessage(*root, "", message);
  return reading;
}

int LineOf(const FieldLines& lines, std::string path) {
  while (!path.empty()) {
    if (const auto found = lines.find(path); found != lines.end()) return found->second;
    const size_t cut = path.find_last_of(".[");
    path.resize(cut == std::string::npos ? 0 : cut);
  }
  return 1;
}

}  // namespace allometry::coordinator
