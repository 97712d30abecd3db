#include "worker/trainer/models/lconv.h"

#include "worker/trainer/layers/light_convolution.h"
#include "worker/trainer/models/encoder_decoder.h"

namespace allometry::trainer {
namespace {

std::shared_ptr<Sublayer> MakeLightConvolution(const ModelSpec& spec, const BlockPlace& place) {
  const int64_t heads = spec.options.at("heads").get<int64_t>();
  return std::make_shared<LightConvolutionSublayer>(spec.shape.d_model, heads == 0 ? spec.shape.d_model : heads,
                                                    /*causal=*/place.is_decoder, spec.dropout);
}

}  // namespace

std::shared_ptr<Model> MakeLconv(const ModelSpec& spec, uint64_t seed) {
  BackboneParts parts;
  parts.mixer = &MakeLightConvolution;
  return std::make_shared<EncoderDecoder>(spec, parts, seed);
}

}  // namespace allometry::trainer
