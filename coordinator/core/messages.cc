#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>

#include "common/json.h"
#include "common/sha256.h"
#include "coordinator/core/core_internal.h"

namespace allometry::coordinator {
namespace {

using common::Json;
using google::protobuf::FieldDescriptor;

// Map fields in the order of their keys.
std::string StableBytes(const google::protobuf::Message& message) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

}  // namespace

std::string CostsToJson(const v1::Costs& costs) {
  Json json = Json::object();
  const auto* reflection = costs.GetReflection();
  for (int i = 0; i < costs.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = costs.GetDescriptor()->field(i);
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_INT64)
      json[field->name()] = reflection->GetInt64(costs, field);
    else
      json[field->name()] = reflection->GetDouble(costs, field);
  }
  return json.dump();
}

v1::Costs CostsFromJson(const std::string& text) {
  v1::Costs costs;
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return costs;
  const auto* reflection = costs.GetReflection();
  for (int i = 0; i < costs.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = costs.GetDescriptor()->field(i);
    const auto value = json.find(field->name());
    if (value == json.end() || !value->is_number()) continue;
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_INT64)
      reflection->SetInt64(&costs, field, value->get<int64_t>());
    else
      reflection->SetDouble(&costs, field, value->get<double>());
  }
  return costs;
}

std::string TagsToJson(const std::map<std::string, std::string>& tags) {
  return Json(tags).dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::map<std::string, std::string> TagsFromJson(const std::string& text) {
  std::map<std::string, std::string> tags;
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return tags;
  for (const auto& [key, value] : json.items())
    if (value.is_string()) tags[key] = value.get<std::string>();
  return tags;
}

std::vector<std::string> StringsFromJson(const std::string& text) {
  std::vector<std::string> strings;
  for (const Json& value : Json::parse(text, nullptr, false))
    if (value.is_string()) strings.push_back(value.get<std::string>());
  return strings;
}

std::string DeviceKind(const std::vector<std::string>& devices) {
  if (devices.empty()) return "cpu";
  const auto kind = [](const std::string& device) {  // "cuda:0 NVIDIA H100 80GB": the name without the number
    const size_t blank = device.find(' ');
    return blank == std::string::npos ? device.substr(0, device.find(':')) : device.substr(blank + 1);
  };
  const bool same =
      std::ranges::all_of(devices, [&](const std::string& d) { return kind(d) == kind(devices.front()); });
  return same ? kind(devices.front()) : "";
}

std::vector<scheduler::Device> DevicesOf(const store::WorkerRow& row) {
  std::vector<scheduler::Device> devices(StringsFromJson(row.devices_json).size());
  const Json memory = Json::parse(row.device_memory_json, nullptr, false);
  for (size_t i = 0; i < devices.size() && memory.is_array() && i < memory.size(); ++i)
    if (memory[i].is_number_integer()) devices[i].memory_bytes = memory[i].get<int64_t>();
  return devices;
}

scheduler::Kind KindOf(v1::RunKind kind) { return static_cast<scheduler::Kind>(kind); }

v1::RunKind KindFromName(const std::string& name) {
  for (auto kind : {v1::RUN_KIND_PREPARE, v1::RUN_KIND_PRETRAIN, v1::RUN_KIND_FINETUNE})
    if (name == store::KindName(KindOf(kind))) return kind;
  return v1::RUN_KIND_UNSPECIFIED;
}

v1::RunState StateMessage(scheduler::RunState state) { return static_cast<v1::RunState>(static_cast<int>(state) + 1); }

std::string ContentHash(const v1::SweepSpec& spec, const std::vector<Cell>& cells) {
  v1::SweepSpec steering;
  steering.set_description(spec.description());
  *steering.mutable_tags() = spec.tags();
  *steering.mutable_scheduling() = spec.scheduling();
  *steering.mutable_budget() = spec.budget();
  *steering.mutable_limits() = spec.limits();
  steering.set_activation_checkpointing(spec.activation_checkpointing());
  steering.set_keep_models(spec.keep_models());
  common::Sha256 hash;
  steering.set_slots_per_gpu(spec.slots_per_gpu());  // as it was asked for: what "auto" comes to is the planner's
  for (const v1::SizeSpec& size : spec.sizes())
    if (!size.slots_per_gpu().empty()) {
      v1::SizeSpec* asked = steering.add_sizes();
      asked->set_name(size.name());
      asked->set_slots_per_gpu(size.slots_per_gpu());
    }
  hash.Update(StableBytes(steering));
  for (const Cell& cell : cells) {
    hash.Update("\n" + cell.name + " " + cell.identity);
    if (cell.devices != 1) hash.Update(" on " + std::to_string(cell.devices));
  }
  return hash.FinishHex();
}

std::string OneLine(const std::string& text) {
  std::string line = text.substr(0, 500);
  std::ranges::replace_if(
      line, [](unsigned char c) { return c < ' '; }, ' ');
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line;
}

v1::Output OutputOf(const std::string& name, const std::vector<store::FileRow>& files) {
  v1::Output output;
  output.set_name(name);
  for (const store::FileRow& row : files) {
    v1::BlobFile* file = output.add_files();
    file->set_path(row.path);
    file->set_sha256(row.sha256);
    file->set_bytes(row.bytes);
  }
  return output;
}

}  // namespace allometry::coordinator
