#include "worker/trainer/models/dconv.h"

#include "arch/dconv.h"
#include "worker/trainer/layers/dynamic_convolution.h"
#include "worker/trainer/layers/feed_forward.h"
#include "worker/trainer/models/encoder_decoder.h"

namespace allometry::trainer {
namespace {

std::shared_ptr<Sublayer> MakeDynamicConvolution(const ModelSpec& spec, const BlockPlace& place) {
  return std::make_shared<DynamicConvolutionSublayer>(spec.shape.d_model, arch::DconvKernels(spec.shape, spec.options),
                                                      /*causal=*/place.is_decoder, spec.dropout);
}

std::shared_ptr<Sublayer> MakeNarrowFeedForward(const ModelSpec& spec, const BlockPlace&) {
  return std::make_shared<FeedForwardSublayer>(spec.shape.d_model, arch::DconvFeedForward(spec.shape), spec.dropout);
}

}  // namespace

std::shared_ptr<Model> MakeDconv(const ModelSpec& spec, uint64_t seed) {
  BackboneParts parts;
  parts.mixer = &MakeDynamicConvolution;
  parts.feed_forward = &MakeNarrowFeedForward;
  return std::make_shared<EncoderDecoder>(spec, parts, seed);
}

}  // namespace allometry::trainer
