#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace allometry::coordinator {

// Raw data that comes with a Debian package: a corpus or a downstream task of the built-in trainer.
struct KnownData {
  std::string_view name;
  std::string_view package;
  std::string_view folder;
  std::vector<std::string_view> files;
};

std::span<const KnownData> KnownCorpora();
std::span<const KnownData> KnownTasks();
const KnownData* FindKnown(std::span<const KnownData> all, std::string_view name);  // null when there is none
std::vector<std::string> NamesOf(std::span<const KnownData> all);

}  // namespace allometry::coordinator
