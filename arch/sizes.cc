#include <array>

#include "arch/architecture.h"
#include "common/ids.h"

namespace allometry::arch {
namespace {

constexpr int64_t kVocabulary = 32128;

constexpr Size Row(std::string_view name, int64_t layers, int64_t d_model, int64_t d_ff, int64_t heads, int64_t d_kv) {
  return {name, {layers, layers, d_model, d_ff, heads, d_kv, kVocabulary}};
}

// From tiny on the public T5 checkpoints' rows (mini after the Scale-Efficiently ones); the three smallest are ours.
constexpr std::array kSizes{
    Row("nano", 4, 64, 288, 2, 32),        Row("micro", 4, 96, 480, 3, 32),      Row("milli", 4, 160, 672, 5, 32),
    Row("tiny", 4, 256, 1024, 4, 64),      Row("mini", 4, 384, 1536, 8, 64),     Row("small", 6, 512, 2048, 8, 64),
    Row("base", 12, 768, 3072, 12, 64),    Row("large", 24, 1024, 4096, 16, 64), Row("xl", 24, 1024, 16384, 32, 128),
    Row("xxl", 24, 1024, 65536, 128, 128),
};

}  // namespace

std::span<const Size> Sizes() { return kSizes; }

common::Result<Shape> FindSize(std::string_view name) {
  std::vector<std::string> names;
  for (const Size& size : kSizes) {
    if (size.name == name) return size.shape;
    names.emplace_back(size.name);
  }
  std::string message = "no size is named '" + std::string(name) + "'; the grid has";
  for (const std::string& known : names) message += ' ' + known;
  const std::string near = common::NearestName(std::string(name), names);
  if (!near.empty()) message += "; did you mean '" + near + "'?";
  return common::NotFound(message);
}

}  // namespace allometry::arch
