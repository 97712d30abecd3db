#include "worker/trainer/models/glu.h"

#include <stdexcept>
#include <string>

#include "arch/inventory.h"
#include "worker/trainer/layers/feed_forward.h"
#include "worker/trainer/models/encoder_decoder.h"

namespace allometry::trainer {
namespace {

Activation ActivationNamed(const std::string& name) {
  if (name == "sigmoid") return Activation::kSigmoid;
  if (name == "gelu") return Activation::kGelu;
  if (name == "silu") return Activation::kSilu;
  if (name == "relu") return Activation::kRelu;
  throw std::invalid_argument("glu: activation '" + name + "' is none of sigmoid, gelu, silu, relu");
}

std::shared_ptr<Sublayer> MakeGated(const ModelSpec& spec, const BlockPlace&) {
  return std::make_shared<GatedFeedForwardSublayer>(
      spec.shape.d_model, arch::RoundToMultipleOf8(2.0 * static_cast<double>(spec.shape.d_ff) / 3.0),
      ActivationNamed(spec.options.at("activation")), spec.dropout);
}

}  // namespace

std::shared_ptr<Model> MakeGlu(const ModelSpec& spec, uint64_t seed) {
  BackboneParts parts;
  parts.feed_forward = &MakeGated;
  parts.untied_output = !spec.options.at("tied_embedding").get<bool>();
  return std::make_shared<EncoderDecoder>(spec, parts, seed);
}

}  // namespace allometry::trainer
