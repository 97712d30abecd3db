#include "worker/trainer/models/switch.h"

#include <ATen/ATen.h>

#include <regex>
#include <stdexcept>
#include <vector>

#include "arch/switch.h"
#include "worker/trainer/layers/experts.h"
#include "worker/trainer/layers/feed_forward.h"
#include "worker/trainer/models/encoder_decoder.h"

namespace allometry::trainer {
namespace {

std::shared_ptr<Sublayer> MakeSwitchFeedForward(const ModelSpec& spec, const BlockPlace& place) {
  const arch::Shape& shape = spec.shape;
  if (!arch::SwitchHasExperts(spec.options, place.index))
    return std::make_shared<FeedForwardSublayer>(shape.d_model, shape.d_ff, spec.dropout, "mlp");
  const int64_t length = place.is_decoder ? spec.lengths.targets : spec.lengths.inputs;
  const ExpertsSublayer::Sizes sizes{shape.d_model, shape.d_ff, arch::kSwitchExperts, arch::SwitchCapacity(length)};
  return std::make_shared<ExpertsSublayer>(sizes, spec.dropout);
}

}  // namespace

std::shared_ptr<Model> MakeSwitch(const ModelSpec& spec, uint64_t seed) {
  BackboneParts parts;
  parts.feed_forward = &MakeSwitchFeedForward;
  parts.float32_weights = "router.classifier.weight";
  return std::make_shared<EncoderDecoder>(spec, parts, seed);
}

std::set<std::string> DivideExperts(Model& model, const ExpertRanks& ranks) {
  std::set<std::string> names;
  for (const auto& module : model.named_modules()) {
    auto* layer = dynamic_cast<ExpertsSublayer*>(module.value().get());
    if (!layer) continue;
    layer->Divide(ranks);
    for (const char* weight : {".mlp.experts.wi.weight", ".mlp.experts.wo.weight"}) names.insert(module.key() + weight);
  }
  return names;
}

std::map<std::string, at::Tensor> SplitExperts(const std::map<std::string, at::Tensor>& weights) {
  static const std::regex stacked(R"((.*\.experts)\.(w[io]\.weight))");
  std::map<std::string, at::Tensor> out;
  for (const auto& [name, tensor] : weights) {
    std::smatch match;
    if (!std::regex_match(name, match, stacked)) {
      out[name] = tensor;
      continue;
    }
    for (int64_t e = 0; e < tensor.size(0); ++e)
      out[match.str(1) + ".expert_" + std::to_string(e) + '.' + match.str(2)] = tensor.select(0, e).contiguous();
  }
  return out;
}

std::map<std::string, at::Tensor> StackExperts(const std::map<std::string, at::Tensor>& weights) {
  static const std::regex single(R"((.*\.experts)\.expert_(\d+)\.(w[io]\.weight))");
  std::map<std::string, at::Tensor> out;
  std::map<std::string, std::map<int64_t, at::Tensor>> stacks;
  for (const auto& [name, tensor] : weights) {
    std::smatch match;
    if (std::regex_match(name, match, single))
      stacks[match.str(1) + '.' + match.str(3)][std::stoll(match.str(2))] = tensor;
    else
      out[name] = tensor;
  }
  for (const auto& [name, experts] : stacks) {
    if (experts.rbegin()->first + 1 != static_cast<int64_t>(experts.size()))
      throw std::invalid_argument(name + ": of the experts 0 to " + std::to_string(experts.rbegin()->first) + " only " +
                                  std::to_string(experts.size()) + " are there");
    std::vector<at::Tensor> in_order;
    for (const auto& [index, tensor] : experts) in_order.push_back(tensor);
    out[name] = at::stack(in_order);
  }
  return out;
}

}  // namespace allometry::trainer
