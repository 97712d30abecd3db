#include "coordinator/grid/sweep_yaml.h"

#include <google/protobuf/util/json_util.h>
#include <yaml-cpp/yaml.h>

#include <charconv>
#include <map>
#include <vector>

#include "common/json.h"
#include "coordinator/grid/shapes.h"

namespace allometry::coordinator {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Words stand as they are; what could be read as a number, or as anything but text, is quoted.
bool IsWord(const std::string& text) {
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  static constexpr const char* kOtherMeanings[] = {"true", "false", "yes", "no", "null", "on", "off", "inf", "nan"};
  if (text.empty() || !is_letter(text[0])) return false;
  for (const char* word : kOtherMeanings)
    if (text == word) return false;
  return text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-") ==
         std::string::npos;
}

void EmitText(const std::string& text, YAML::Emitter* out) {
  if (IsWord(text))
    *out << text;
  else
    *out << YAML::DoubleQuoted << text;
}

void EmitNumber(double value, YAML::Emitter* out) {
  char text[32];
  *out << std::string(text, std::to_chars(text, text + sizeof text, value).ptr);
}

void EmitJson(const common::Json& json, YAML::Emitter* out) {
  if (json.is_object()) {
    *out << YAML::Flow << YAML::BeginMap;
    for (const auto& [key, value] : json.items()) {
      *out << YAML::Key;
      EmitText(key, out);
      *out << YAML::Value;
      EmitJson(value, out);
    }
    *out << YAML::EndMap;
  } else if (json.is_array()) {
    *out << YAML::Flow << YAML::BeginSeq;
    for (const common::Json& value : json) EmitJson(value, out);
    *out << YAML::EndSeq;
  } else if (json.is_string()) {
    EmitText(json.get<std::string>(), out);
  } else if (json.is_number_float()) {
    EmitNumber(json.get<double>(), out);
  } else {
    *out << json.dump();
  }
}

void EmitMessage(const Message& message, YAML::Emitter* out);

// One value of a field; `index` is that of a repeated one, else -1.
void EmitValue(const Message& message, const FieldDescriptor* field, int index, YAML::Emitter* out) {
  const Reflection* r = message.GetReflection();
  const bool one = index < 0;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return EmitText(one ? r->GetString(message, field) : r->GetRepeatedString(message, field, index), out);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return EmitNumber(one ? r->GetDouble(message, field) : r->GetRepeatedDouble(message, field, index), out);
    case FieldDescriptor::CPPTYPE_INT64:
      *out << (one ? r->GetInt64(message, field) : r->GetRepeatedInt64(message, field, index));
      return;
    case FieldDescriptor::CPPTYPE_UINT64:
      *out << (one ? r->GetUInt64(message, field) : r->GetRepeatedUInt64(message, field, index));
      return;
    case FieldDescriptor::CPPTYPE_BOOL:
      *out << (one ? r->GetBool(message, field) : r->GetRepeatedBool(message, field, index));
      return;
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return EmitMessage(one ? r->GetMessage(message, field) : r->GetRepeatedMessage(message, field, index), out);
    default:
      throw std::logic_error("a sweep has no fields of the type of " + field->full_name());
  }
}

void EmitStringMap(const Message& message, const FieldDescriptor* field, YAML::Emitter* out) {
  const Reflection* r = message.GetReflection();
  std::map<std::string, std::string> sorted;
  for (int i = 0; i < r->FieldSize(message, field); ++i) {
    const Message& entry = r->GetRepeatedMessage(message, field, i);
    const auto* descriptor = entry.GetDescriptor();
    sorted[entry.GetReflection()->GetString(entry, descriptor->map_key())] =
        entry.GetReflection()->GetString(entry, descriptor->map_value());
  }
  *out << YAML::BeginMap;
  for (const auto& [key, value] : sorted) {
    *out << YAML::Key;
    EmitText(key, out);
    *out << YAML::Value;
    EmitText(value, out);
  }
  *out << YAML::EndMap;
}

void EmitField(const Message& message, const FieldDescriptor* field, YAML::Emitter* out) {
  if (field->is_map()) return EmitStringMap(message, field, out);
  if (!field->is_repeated()) return EmitValue(message, field, -1, out);
  if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) *out << YAML::Flow;
  *out << YAML::BeginSeq;
  for (int i = 0; i < message.GetReflection()->FieldSize(message, field); ++i) EmitValue(message, field, i, out);
  *out << YAML::EndSeq;
}

void EmitMessage(const Message& message, YAML::Emitter* out) {
  if (message.GetDescriptor()->full_name() == "google.protobuf.Struct")
    return EmitJson(StructToJson(static_cast<const google::protobuf::Struct&>(message)), out);
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  *out << YAML::BeginMap;
  for (const FieldDescriptor* field : fields) {
    *out << YAML::Key << field->name() << YAML::Value;
    EmitField(message, field, out);
  }
  *out << YAML::EndMap;
}

}  // namespace

std::string WriteSweep(const v1::SweepSpec& spec) {
  YAML::Emitter out;
  out.SetBoolFormat(YAML::TrueFalseBool);
  EmitMessage(spec, &out);
  return std::string(out.c_str()) + "\n";
}

common::Result<v1::SweepSpec> SweepFromJson(const std::string& json) {
  v1::SweepSpec spec;
  const auto status = google::protobuf::util::JsonStringToMessage(json, &spec);
  if (!status.ok()) return common::DataLoss("the database's text of the sweep cannot be read: " + status.ToString());
  return spec;
}

}  // namespace allometry::coordinator
