#include "worker/trainer/data/objective.h"

#include <algorithm>
#include <stdexcept>

#include "worker/trainer/data/bert.h"
#include "worker/trainer/data/prefix_lm.h"
#include "worker/trainer/data/span_corruption.h"

namespace allometry::trainer {

void Objective::Apply(std::span<const int32_t> raw, KeyedRandom random, std::span<int32_t> inputs,
                      std::span<int32_t> targets) const {
  const auto is = [](const auto& span, int64_t size) { return static_cast<int64_t>(span.size()) == size; };
  if (raw.size() < 2 || static_cast<int64_t>(raw.size()) > lengths_.raw || !is(inputs, lengths_.inputs) ||
      !is(targets, lengths_.targets))
    throw std::invalid_argument("Objective::Apply: a span has not the length that lengths() gives");
  const Written written = Write(raw, random, inputs.data(), targets.data());
  std::fill(inputs.begin() + written.inputs, inputs.end(), kPad);
  std::fill(targets.begin() + written.targets, targets.end(), kPad);
}

void Objective::MarkText(std::span<const int32_t> targets, KeyedRandom, std::span<uint8_t> marks) const {
  std::ranges::transform(targets, marks.begin(), [this](int32_t id) { return static_cast<uint8_t>(IsText(id)); });
}

common::Result<std::shared_ptr<const Objective>> MakeObjective(const arch::ObjectiveSettings& settings,
                                                               int64_t pieces) {
  ALLO_RETURN_IF_ERROR(arch::CheckObjective(settings));
  std::shared_ptr<const Objective> objective;
  if (settings.name == "prefix_lm") objective = std::make_shared<PrefixLm>(settings, pieces);
  if (settings.name == "bert") objective = std::make_shared<Bert>(settings, pieces);
  if (settings.name == "span_corruption") objective = std::make_shared<SpanCorruption>(settings, pieces);
  return objective;
}

}  // namespace allometry::trainer
