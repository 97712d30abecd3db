#include "coordinator/grid/shapes.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>

#include "common/ids.h"
#include "coordinator/grid/gpu_share.h"
#include "coordinator/grid/yaml_message.h"

namespace allometry::coordinator {
namespace {

using common::Json;

constexpr int64_t kVocabularyOfModel = 32128, kVocabularyTrained = 8192;

Json ValueToJson(const google::protobuf::Value& value) {
  using google::protobuf::Value;
  switch (value.kind_case()) {
    case Value::kBoolValue:
      return value.bool_value();
    case Value::kStringValue:
      return value.string_value();
    case Value::kStructValue:
      return StructToJson(value.struct_value());
    case Value::kNumberValue: {
      const double number = value.number_value();
      const bool integer = number == std::floor(number) && std::abs(number) <= kLargestExactInteger;
      return integer ? Json(static_cast<int64_t>(number)) : Json(number);
    }
    case Value::kListValue: {
      Json list = Json::array();
      for (const auto& item : value.list_value().values()) list.push_back(ValueToJson(item));
      return list;
    }
    default:
      return nullptr;
  }
}

// A dimension of a shape: how a size gives it, how an axis does, and what it adds to a cell's name.
struct Dimension {
  const char* name;
  const char* suffix;
  int64_t arch::Shape::*field;
  bool (v1::SizeSpec::*has)() const;
  int64_t (v1::SizeSpec::*get)() const;
  const google::protobuf::RepeatedField<int64_t>& (v1::ShapeAxes::*axis)() const;
};

// `layers` is no dimension of its own: it sets both stacks.
const Dimension kDimensions[] = {
    {"encoder_layers", "el", &arch::Shape::encoder_layers, &v1::SizeSpec::has_encoder_layers,
     &v1::SizeSpec::encoder_layers, &v1::ShapeAxes::encoder_layers},
    {"decoder_layers", "dl", &arch::Shape::decoder_layers, &v1::SizeSpec::has_decoder_layers,
     &v1::SizeSpec::decoder_layers, &v1::ShapeAxes::decoder_layers},
    {"d_model", "dm", &arch::Shape::d_model, &v1::SizeSpec::has_d_model, &v1::SizeSpec::d_model,
     &v1::ShapeAxes::d_model},
    {"d_ff", "ff", &arch::Shape::d_ff, &v1::SizeSpec::has_d_ff, &v1::SizeSpec::d_ff, &v1::ShapeAxes::d_ff},
    {"heads", "nh", &arch::Shape::heads, &v1::SizeSpec::has_heads, &v1::SizeSpec::heads, &v1::ShapeAxes::heads},
    {"d_kv", "kv", &arch::Shape::d_kv, &v1::SizeSpec::has_d_kv, &v1::SizeSpec::d_kv, &v1::ShapeAxes::d_kv},
    {"vocabulary", "nv", &arch::Shape::vocabulary, &v1::SizeSpec::has_vocabulary, &v1::SizeSpec::vocabulary,
     &v1::ShapeAxes::vocabulary},
};

void SetLayers(GridShape* shape, int64_t layers) {
  shape->shape.encoder_layers = shape->shape.decoder_layers = layers;
  shape->given["encoder_layers"] = shape->given["decoder_layers"] = layers;
}

// Crosses every shape with every value of one axis.
template <typename Set>
void Cross(const google::protobuf::RepeatedField<int64_t>& values, const char* suffix, Set set,
           std::vector<GridShape>* shapes) {
  if (values.empty()) return;
  std::vector<GridShape> crossed;
  for (const GridShape& shape : *shapes)
    for (int64_t value : values) {
      GridShape next = shape;
      next.name += "-" + std::string(suffix) + std::to_string(value);
      set(&next, value);
      crossed.push_back(std::move(next));
    }
  *shapes = std::move(crossed);
}

std::vector<GridShape> CrossAxes(GridShape first, const v1::ShapeAxes& axes) {
  std::vector<GridShape> shapes{std::move(first)};
  Cross(axes.layers(), "nl", SetLayers, &shapes);
  for (const Dimension& dimension : kDimensions)
    Cross((axes.*dimension.axis)(), dimension.suffix,
          [&](GridShape* shape, int64_t value) {
            shape->shape.*dimension.field = value;
            shape->given[dimension.name] = value;
          },
          &shapes);
  return shapes;
}

Json GivenOf(const v1::SizeSpec& size) {
  Json given = Json::object();
  if (size.has_layers()) given["encoder_layers"] = given["decoder_layers"] = size.layers();
  for (const Dimension& dimension : kDimensions)
    if ((size.*dimension.has)()) given[dimension.name] = (size.*dimension.get)();
  return given;
}

std::string Missing(const arch::Shape& shape) {
  std::string missing;
  for (const Dimension& dimension : kDimensions)
    if (shape.*dimension.field == 0) missing += (missing.empty() ? "" : ", ") + std::string(dimension.name);
  return missing;
}

}  // namespace

common::Result<arch::Shape> ShapeOfSize(const v1::SizeSpec& size, const v1::SweepSpec& spec) {
  auto known = arch::FindSize(size.name());
  const Json given = GivenOf(size);
  arch::Shape shape = known ? *known : arch::Shape{};
  shape.vocabulary = VocabularyOf(spec);
  for (const Dimension& dimension : kDimensions)
    if (given.contains(dimension.name)) shape.*dimension.field = given[dimension.name].get<int64_t>();
  const std::string missing = Missing(shape);
  if (missing.empty() || !IsBuiltin(spec)) return shape;
  if (given.empty()) return common::InvalidArgument(known.error().message);
  return common::InvalidArgument("size '" + size.name() +
                                 "' is not of the grid, so it needs all dimensions; missing: " + missing +
                                 " (layers sets both stacks)");
}

common::Result<std::vector<GridShape>> ShapesOf(const v1::SweepSpec& spec) {
  std::vector<GridShape> shapes;
  for (int i = 0; i < spec.sizes_size(); ++i) {
    const v1::SizeSpec& size = spec.sizes(i);
    ALLO_ASSIGN_OR_RETURN(const arch::Shape shape, ShapeOfSize(size, spec));
    GridShape first{size.name(), i, shape, GivenOf(size), StructToJson(size.options())};
    for (GridShape& crossed : CrossAxes(std::move(first), spec.axes())) shapes.push_back(std::move(crossed));
  }
  return shapes;
}

int64_t ShapeCount(const v1::SweepSpec& spec) {
  int64_t count = spec.sizes_size();
  const auto multiply = [&](int values) { count = std::min<int64_t>(count * std::max(values, 1), 1LL << 40); };
  multiply(spec.axes().layers_size());
  for (const Dimension& dimension : kDimensions) multiply((spec.axes().*dimension.axis)().size());
  return count;
}

bool IsBuiltin(const v1::SweepSpec& spec) { return spec.trainer().empty() || spec.trainer() == "builtin"; }

bool IsBuiltData(const v1::SweepSpec& spec) { return !spec.data().path().empty() || !spec.data().mixture().empty(); }

std::string PartNameOf(const v1::DataPartSpec& part) {
  if (!part.name().empty()) return part.name();
  std::filesystem::path folder = std::filesystem::path(part.path()).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();  // a slash at the end
  return folder.filename().string();
}

int64_t VocabularyOf(const v1::SweepSpec& spec) {
  if (spec.tokenizer().has_vocabulary()) return spec.tokenizer().vocabulary();
  return spec.tokenizer().model().empty() ? kVocabularyTrained : kVocabularyOfModel;
}

std::string DevicesText(const v1::SweepSpec& spec, const v1::SizeSpec& size) {
  if (!size.devices().empty()) return size.devices();
  return spec.devices().empty() ? "1" : spec.devices();
}

std::optional<int64_t> ParseDevices(const std::string& text) {
  if (text == "auto") return 0;
  int64_t devices = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), devices);
  if (error != std::errc() || end != text.data() + text.size() || devices < 1 || devices > kMostDevices)
    return std::nullopt;
  return devices;
}

std::string SlotsPerGpuText(const v1::SweepSpec& spec, const v1::SizeSpec& size) {
  if (!size.slots_per_gpu().empty()) return size.slots_per_gpu();
  return spec.slots_per_gpu().empty() ? "auto" : spec.slots_per_gpu();
}

std::optional<int64_t> ParseSlotsPerGpu(const std::string& text) {
  if (text == "auto") return 0;
  for (int64_t slots = 1; slots <= kMostSlotsPerGpu; slots *= 2)
    if (text == std::to_string(slots)) return slots;
  return std::nullopt;
}

std::string LabelOf(const v1::ArchitectureSpec& architecture) {
  return architecture.label().empty() ? architecture.name() : architecture.label();
}

std::string CellName(const v1::ArchitectureSpec& architecture, const GridShape& shape, uint64_t seed) {
  return LabelOf(architecture) + "-" + shape.name + "-s" + std::to_string(seed);
}

std::vector<uint64_t> SeedsOf(const v1::SweepSpec& spec) {
  if (spec.seeds().empty()) return {0};
  return {spec.seeds().begin(), spec.seeds().end()};
}

Json StructToJson(const google::protobuf::Struct& value) {
  Json object = Json::object();
  for (const auto& [name, item] : value.fields()) object[name] = ValueToJson(item);
  return object;
}

}  // namespace allometry::coordinator
