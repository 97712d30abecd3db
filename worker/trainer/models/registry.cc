#include <map>
#include <stdexcept>

#include "worker/trainer/models/albert.h"
#include "worker/trainer/models/dconv.h"
#include "worker/trainer/models/evolved.h"
#include "worker/trainer/models/funnel.h"
#include "worker/trainer/models/glu.h"
#include "worker/trainer/models/lconv.h"
#include "worker/trainer/models/mixer.h"
#include "worker/trainer/models/model.h"
#include "worker/trainer/models/mos.h"
#include "worker/trainer/models/performer.h"
#include "worker/trainer/models/switch.h"
#include "worker/trainer/models/transformer.h"
#include "worker/trainer/models/universal.h"

namespace allometry::trainer {

at::Tensor ShiftRight(const at::Tensor& targets_bt) {
  return at::constant_pad_nd(targets_bt.slice(/*dim=*/1, 0, targets_bt.size(1) - 1), {1, 0}, 0);
}

std::shared_ptr<Model> MakeModel(const ModelSpec& spec, uint64_t seed) {
  using Factory = std::shared_ptr<Model> (*)(const ModelSpec&, uint64_t);
  static const std::map<std::string, Factory> factories{{"transformer", &MakeTransformer},
                                                        {"albert", &MakeAlbert},
                                                        {"dconv", &MakeDconv},
                                                        {"evolved", &MakeEvolved},
                                                        {"funnel", &MakeFunnel},
                                                        {"glu", &MakeGlu},
                                                        {"lconv", &MakeLconv},
                                                        {"mixer", &MakeMixer},
                                                        {"mos", &MakeMos},
                                                        {"performer", &MakePerformer},
                                                        {"switch", &MakeSwitch},
                                                        {"universal", &MakeUniversal}};
  const auto found = factories.find(spec.architecture);
  if (found == factories.end()) {
    std::string known;
    for (const auto& [name, factory] : factories) known += ' ' + name;
    throw std::invalid_argument("no model is built for architecture '" + spec.architecture + "'; there are:" + known);
  }
  return found->second(spec, seed);
}

}  // namespace allometry::trainer
