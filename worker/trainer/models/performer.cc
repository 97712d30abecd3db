#include "worker/trainer/models/performer.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "arch/performer.h"
#include "worker/trainer/data/random.h"
#include "worker/trainer/layers/linear_attention.h"
#include "worker/trainer/models/encoder_decoder.h"

namespace allometry::trainer {
namespace {

// One draw for each stack, which its layers and heads share.
struct Draws {
  explicit Draws(int64_t depth)
      : encoder(std::make_shared<RandomFeatures>(arch::kPerformerFeatures, depth)),
        decoder(std::make_shared<RandomFeatures>(arch::kPerformerFeatures, depth)) {}
  std::shared_ptr<RandomFeatures> encoder, decoder;
};

BackboneParts PartsWith(const Draws& draws) {
  BackboneParts parts;
  parts.mixer = [draws](const ModelSpec& spec, const BlockPlace& place) -> std::shared_ptr<Sublayer> {
    LinearAttentionSublayer::Options options;
    options.kernel = spec.options.at("kernel") == "relu" ? FeatureKernel::kRelu : FeatureKernel::kSoftmax;
    options.causal = place.is_decoder;
    options.owns_features = place.index == 0;
    options.dropout = spec.dropout;
    return std::make_shared<LinearAttentionSublayer>(spec.shape, place.is_decoder ? draws.decoder : draws.encoder,
                                                     options);
  };
  parts.sinusoidal_positions = true;
  return parts;
}

class PerformerModel : public EncoderDecoder {
 public:
  PerformerModel(const ModelSpec& spec, const Draws& draws, uint64_t seed)
      : EncoderDecoder(spec, PartsWith(draws), seed),
        draws_(draws),
        redraw_steps_(spec.options.at("redraw_steps").get<int64_t>()),
        seed_(seed) {}

  void BeginStep(int64_t step) override {
    if (redraw_steps_ == 0 || step == 1 || (step - 1) % redraw_steps_ != 0) return;
    const at::Generator generator = at::detail::createCPUGenerator(Mix64(Mix64(seed_) ^ static_cast<uint64_t>(step)));
    draws_.encoder->Draw(generator);
    draws_.decoder->Draw(generator);
  }

 private:
  Draws draws_;
  int64_t redraw_steps_;
  uint64_t seed_;
};

}  // namespace

std::shared_ptr<Model> MakePerformer(const ModelSpec& spec, uint64_t seed) {
  return std::make_shared<PerformerModel>(spec, Draws(spec.shape.d_kv), seed);
}

}  // namespace allometry::trainer
