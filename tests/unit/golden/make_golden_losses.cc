// Writes tests/golden/losses/NAME.json anew, and says how far the new losses are from the old ones:
//   build/trainer/tests/make_golden_losses SOURCE_FOLDER NAME...     (or --all)
// Only after a change that is meant to change losses, together with a higher numerics_version, or for a new
// architecture. Nothing else writes these files.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "arch/architecture.h"
#include "common/files.h"
#include "tests/unit/golden/golden_losses.h"

namespace {

using allometry::common::Json;

void Compare(const Json& old, const Json& now) {
  const auto a = old.at("losses").get<std::vector<double>>(), b = now.at("losses").get<std::vector<double>>();
  double largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) largest = std::max(largest, std::abs(b[i] / a[i] - 1));
  std::printf("  largest relative difference %.3g; numerics_version %d -> %d\n", largest,
              old.at("numerics_version").get<int>(), now.at("numerics_version").get<int>());
}

int Write(const std::string& source_folder, const std::string& name) {
  const auto path = allometry::trainer::GoldenPath(source_folder, name);
  const Json now = allometry::trainer::GoldenFile(name, allometry::trainer::GoldenRun(name));
  std::printf("%s: %.4f -> %.4f\n", path.c_str(), now["losses"].front().get<double>(),
              now["losses"].back().get<double>());
  if (const auto old = allometry::common::ReadJsonFile(path)) Compare(*old, now);
  const auto written = allometry::common::WriteFileAtomically(path, now.dump(1) + "\n");
  if (!written) std::fprintf(stderr, "%s\n", written.error().message.c_str());
  return written ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: make_golden_losses SOURCE_FOLDER NAME... | --all\n");
    return 2;
  }
  std::vector<std::string> names(argv + 2, argv + argc);
  if (names.front() == "--all") {
    names.clear();
    for (const auto* architecture : allometry::arch::Architectures()) names.emplace_back(architecture->name());
  }
  try {
    int failed = 0;
    for (const std::string& name : names) failed += Write(argv[1], name);
    return failed ? 1 : 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
