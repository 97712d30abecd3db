#include "coordinator/grid/known_tasks.h"

namespace allometry::coordinator {

std::span<const KnownData> KnownCorpora() {
  static const std::vector<KnownData> corpora{
      {"gcide", "dict-gcide", "/usr/share/dictd", {"gcide.dict.dz", "gcide.index"}},
  };
  return corpora;
}

std::span<const KnownData> KnownTasks() {
  static const std::vector<std::string_view> synsets{"data.adj", "data.adv", "data.noun", "data.verb"};
  static const std::vector<KnownData> tasks{
      {"wordnet_pos", "wordnet-base", "/usr/share/wordnet", synsets},
      {"wordnet_wic", "wordnet-base", "/usr/share/wordnet", synsets},
  };
  return tasks;
}

const KnownData* FindKnown(std::span<const KnownData> all, std::string_view name) {
  for (const KnownData& known : all)
    if (known.name == name) return &known;
  return nullptr;
}

std::vector<std::string> NamesOf(std::span<const KnownData> all) {
  std::vector<std::string> names;
  for (const KnownData& known : all) names.emplace_back(known.name);
  return names;
}

}  // namespace allometry::coordinator
