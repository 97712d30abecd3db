#include "coordinator/grid/identity.h"

#include <vector>

#include "arch/architecture.h"
#include "common/sha256.h"

namespace allometry::coordinator {
namespace {

using common::Json;

struct FrozenDefault {
  std::vector<std::string> path;
  Json value;
};

// Only additions: a line that changed or went would give every stored result another identity.
const std::vector<FrozenDefault>& FrozenDefaults() {
  static const std::vector<FrozenDefault> defaults{
      {{"corpus", "document"}, "paragraph"},
      {{"corpus", "validation_fraction"}, 0.01},
      {{"objective", "name"}, "span_corruption"},
      {{"objective", "noise_density"}, 0.15},
      {{"objective", "mean_span_length"}, 3.0},
      {{"optimizer", "weight_decay"}, 0.0},
      {{"optimizer", "clip_norm"}, 0.0},
      {{"dropout"}, 0.0},
      {{"evaluation", "examples"}, 512},
      {{"evaluation", "every_steps"}, 0},
      {{"divergence", "loss_spike"}, 2.0},
      {{"select"}, "last"},
      {{"mixture", "cap"}, 0},
      {{"shuffle_labels"}, false},
  };
  return defaults;
}

void RemoveDefault(Json* object, const std::vector<std::string>& path, size_t depth, const Json& value) {
  if (!object->is_object() || !object->contains(path[depth])) return;
  Json& member = (*object)[path[depth]];
  if (depth + 1 < path.size()) {
    RemoveDefault(&member, path, depth + 1, value);
    if (member.is_object() && member.empty()) object->erase(path[depth]);
  } else if (member == value) {
    object->erase(path[depth]);
  }
}

// An architecture's options keep their defaults for as long as its numerics_version, which is part of the identity.
void RemoveDefaultOptions(Json* run) {
  if (run->value("trainer", "") != "builtin" || !run->contains("model")) return;
  const auto architecture = arch::FindArchitecture(run->at("model").value("architecture", ""));
  if (!architecture) return;
  for (const arch::OptionSpec& option : (*architecture)->options())
    RemoveDefault(run, {"model", "options", option.name}, 0, option.default_value);
  RemoveDefault(run, {"model", "options"}, 0, Json::object());
}

}  // namespace

std::string IdentityOf(const Json& run, const std::string& precision) {
  Json reduced = run;
  for (const FrozenDefault& frozen : FrozenDefaults()) RemoveDefault(&reduced, frozen.path, 0, frozen.value);
  RemoveDefaultOptions(&reduced);
  Json hashed = {{"identity_version", kIdentityVersion}, {"run", std::move(reduced)}};
  if (precision != "auto") hashed["precision"] = precision;
  return common::Sha256Hex(common::CanonicalJson(hashed));
}

}  // namespace allometry::coordinator
