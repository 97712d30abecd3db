#include "worker/trainer/models/mixer.h"

#include <string>

#include "arch/mixer.h"
#include "worker/trainer/layers/attention.h"
#include "worker/trainer/layers/token_mixing.h"
#include "worker/trainer/models/encoder_decoder.h"

namespace allometry::trainer {
namespace {

std::shared_ptr<Sublayer> MakeMixing(const ModelSpec& spec, const BlockPlace& place) {
  if (place.is_decoder && spec.options.at("decoder").get<std::string>() == "attention")
    return std::make_shared<AttentionSublayer>(spec.shape, /*is_cross=*/false, /*with_table=*/place.index == 0,
                                               spec.dropout);
  const char* length = place.is_decoder ? "target_length" : "input_length";
  return std::make_shared<TokenMixingSublayer>(spec.shape.d_model, arch::MixerHidden(spec.shape),
                                               spec.options.at(length).get<int64_t>(), /*causal=*/place.is_decoder,
                                               spec.dropout);
}

}  // namespace

std::shared_ptr<Model> MakeMixer(const ModelSpec& spec, uint64_t seed) {
  BackboneParts parts;
  parts.mixer = &MakeMixing;
  return std::make_shared<EncoderDecoder>(spec, parts, seed);
}

}  // namespace allometry::trainer
