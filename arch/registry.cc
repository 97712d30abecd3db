#include <array>

#include "arch/albert.h"
#include "arch/architecture.h"
#include "arch/dconv.h"
#include "arch/evolved.h"
#include "arch/funnel.h"
#include "arch/glu.h"
#include "arch/lconv.h"
#include "arch/mixer.h"
#include "arch/mos.h"
#include "arch/performer.h"
#include "arch/switch.h"
#include "arch/transformer.h"
#include "arch/universal.h"
#include "common/ids.h"

namespace allometry::arch {

std::span<const Architecture* const> Architectures() {
  static const std::array all{&Transformer(), &Albert(), &Dconv(), &Evolved(),   &Funnel(), &Glu(),
                              &Lconv(),       &Mixer(),  &Mos(),   &Performer(), &Switch(), &Universal()};
  return all;
}

common::Result<const Architecture*> FindArchitecture(std::string_view name) {
  std::vector<std::string> names;
  for (const Architecture* architecture : Architectures()) {
    if (architecture->name() == name) return architecture;
    names.emplace_back(architecture->name());
  }
  std::string message = "no architecture is named '" + std::string(name) + "'; there are";
  for (const std::string& known : names) message += ' ' + known;
  const std::string near = common::NearestName(std::string(name), names);
  if (!near.empty()) message += "; did you mean '" + near + "'?";
  return common::NotFound(message);
}

}  // namespace allometry::arch
