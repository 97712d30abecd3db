#include "worker/trainer/models/transformer.h"

#include "worker/trainer/models/encoder_decoder.h"

namespace allometry::trainer {

std::shared_ptr<Model> MakeTransformer(const ModelSpec& spec, uint64_t seed) {
  return std::make_shared<EncoderDecoder>(spec, BackboneParts{}, seed);
}

}  // namespace allometry::trainer
