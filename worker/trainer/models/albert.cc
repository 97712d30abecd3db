#include "worker/trainer/models/albert.h"

#include "arch/albert.h"
#include "worker/trainer/models/encoder_decoder.h"

namespace allometry::trainer {

std::shared_ptr<Model> MakeAlbert(const ModelSpec& spec, uint64_t seed) {
  BackboneParts parts;
  parts.shared_layers = true;
  parts.embedding_factor = arch::AlbertFactor(spec.shape, spec.options);
  parts.untied_output = spec.options.at("untied_softmax").get<bool>();
  return std::make_shared<EncoderDecoder>(spec, parts, seed);
}

}  // namespace allometry::trainer
