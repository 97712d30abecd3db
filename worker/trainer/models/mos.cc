#include "worker/trainer/models/mos.h"

#include <ATen/ATen.h>

#include <cmath>

#include "worker/trainer/layers/mixture_cross_entropy.h"
#include "worker/trainer/models/encoder_decoder.h"

namespace allometry::trainer {
namespace {

// log sum_k prior_k softmax(z_k) with z_k = the tables' logits of tanh(W_k h) and prior = softmax(P h).
class MixtureOutput : public OutputLayer {
 public:
  MixtureOutput(int64_t d_model, int64_t softmaxes) : d_model_(d_model), softmaxes_(softmaxes) {
    latent_ = AddWeight(this, "latent", {softmaxes * d_model, d_model});  // W, row k * d + i
    prior_ = AddWeight(this, "prior", {softmaxes, d_model});              // P
  }
  void Initialise(at::Generator generator) override {
    for (const auto& weight : {latent_, prior_})
      FillNormal(**weight, std::pow(static_cast<double>(d_model_), -0.5), generator);
  }
  at::Tensor Logits(const at::Tensor& decoded_nd, const TokenTables& tables) const override {
    return MixtureLogProbabilities(MixtureOf(decoded_nd, tables));
  }
  ZLoss LossSums(const at::Tensor& decoded_nd, const TokenTables& tables, const at::Tensor& targets_n,
                 double z) const override {
    return MixtureCrossEntropyWithZLoss(MixtureOf(decoded_nd, tables), targets_n, z);
  }
  at::Tensor NllRows(const at::Tensor& decoded_nd, const TokenTables& tables,
                     const at::Tensor& targets_n) const override {
    return MixtureCrossEntropyRows(MixtureOf(decoded_nd, tables), targets_n);
  }

 private:
  Mixture MixtureOf(const at::Tensor& decoded_nd, const TokenTables& tables) const {
    const at::Tensor latent_nkd = at::tanh(at::linear(decoded_nd, **latent_)).view({-1, softmaxes_, d_model_});
    const at::Tensor prior_nk = at::linear(decoded_nd, **prior_);
    const TokenTables::Head head = tables.OutputHead(latent_nkd.view({-1, d_model_}));
    return {head.hidden_ne.view({-1, softmaxes_, head.hidden_ne.size(1)}), LogPrior(prior_nk), head.table_ve};
  }

  int64_t d_model_, softmaxes_;
  std::shared_ptr<Weight> latent_, prior_;
};

std::shared_ptr<OutputLayer> MakeMixture(const ModelSpec& spec) {
  return std::make_shared<MixtureOutput>(spec.shape.d_model, spec.options.at("softmaxes").get<int64_t>());
}

}  // namespace

std::shared_ptr<Model> MakeMos(const ModelSpec& spec, uint64_t seed) {
  BackboneParts parts;
  parts.output = &MakeMixture;
  return std::make_shared<EncoderDecoder>(spec, parts, seed);
}

}  // namespace allometry::trainer
