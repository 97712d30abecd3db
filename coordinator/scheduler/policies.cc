#include "coordinator/scheduler/policies.h"

namespace allometry::scheduler {

const Policy* FindPolicy(const std::string& name) {
  static const Policy* const kAll[] = {&kFewestFlopsFirst, &kFifo};
  if (name.empty()) return kAll[0];
  for (const Policy* policy : kAll)
    if (name == policy->name) return policy;
  return nullptr;
}

}  // namespace allometry::scheduler
