#include "worker/trainer/models/universal.h"

#include <ATen/ATen.h>
#include <torch/nn/modules/container/modulelist.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "arch/universal.h"
#include "worker/trainer/layers/feed_forward.h"
#include "worker/trainer/layers/gru.h"
#include "worker/trainer/layers/halting.h"
#include "worker/trainer/layers/ops.h"
#include "worker/trainer/layers/position_bias.h"
#include "worker/trainer/layers/side_terms.h"
#include "worker/trainer/models/encoder_decoder.h"

namespace allometry::trainer {
namespace {

bool IsGated(const ModelSpec& spec) { return spec.options.at("gate") == "gru"; }

std::shared_ptr<Sublayer> UniversalAttention(const ModelSpec& spec, bool is_cross) {
  if (IsGated(spec)) return std::make_shared<GruAttentionSublayer>(spec.shape, is_cross);
  return std::make_shared<AttentionSublayer>(spec.shape, is_cross, /*with_table=*/false, /*dropout=*/0);
}

std::shared_ptr<Sublayer> FeedForward(const ModelSpec& spec) {
  const arch::Shape& shape = spec.shape;
  if (IsGated(spec)) return std::make_shared<GruFeedForwardSublayer>(shape.d_model, shape.d_ff);
  return std::make_shared<FeedForwardSublayer>(shape.d_model, shape.d_ff, /*dropout=*/0);
}

// One block, applied before, in and after the recurrence. Nothing is dropped.
class UniversalStack : public AnyStack {
 public:
  UniversalStack(const ModelSpec& spec, bool is_decoder)
      : is_decoder_(is_decoder),
        is_gated_(IsGated(spec)),
        d_model_(spec.shape.d_model),
        depth_(spec.shape.d_kv),
        steps_(arch::UniversalSteps(is_decoder ? spec.shape.decoder_layers : spec.shape.encoder_layers)) {
    table_ = AddWeight(this, "relative_attention_bias", {kRelativeBuckets, spec.shape.heads});
    signal_ = AddWeight(this, "step_signal", {steps_, d_model_});
    if (spec.options.at("halting") == "act") halt_ = AddWeight(this, "halt", {1, d_model_});
    std::vector<std::shared_ptr<Sublayer>> sublayers{UniversalAttention(spec, /*is_cross=*/false)};
    if (is_decoder) sublayers.push_back(UniversalAttention(spec, /*is_cross=*/true));
    sublayers.push_back(FeedForward(spec));
    block_ = std::make_shared<Block>(sublayers);
    torch::nn::ModuleList list;
    list->push_back(block_);
    register_module("block", list);
    final_norm_ = register_module("final_layer_norm", std::make_shared<RmsNorm>(d_model_));
  }

  void Initialise(at::Generator generator) override {
    const double sd = std::pow(static_cast<double>(d_model_), -0.5);
    FillNormal(**table_, sd, generator);
    FillNormal(**signal_, sd, generator);  // as large as an embedding, it would drown the tokens' differences
    if (halt_) FillNormal(**halt_, sd, generator);
    block_->Initialise(generator);
    at::NoGradGuard no_grad;
    if (is_gated_)
      (**signal_).select(1, 0).zero_();  // the gates count on this coordinate
    else
      ShrinkOutputs();
  }

  at::Tensor forward(at::Tensor x_btd, StackContext context) override {
    context.positions = PositionsFor(**table_, x_btd, depth_, /*causal=*/is_decoder_);
    return Run(x_btd, context, [&](const at::Tensor& x, int64_t) { return block_->forward(x, context); });
  }

  // A cache for each application: every one has seen other states of the earlier positions.
  at::Tensor Step(at::Tensor x_b1d, StackContext context, StackCache& cache) override {
    cache.applications.resize(static_cast<size_t>(steps_ + 2 * arch::kUniversalPlainApplications));
    context.positions.bias_hqk = PositionBiasRow(**table_, cache.position);
    ++cache.position;
    return Run(x_b1d, context, [&](const at::Tensor& x, int64_t application) {
      return block_->Step(x, context, cache.applications[static_cast<size_t>(application)]);
    });
  }

 private:
  // Every application adds to the state. So that their sum begins as large as one sublayer's value (Radford et al.
  // 2019, "Language Models are Unsupervised Multitask Learners", section 2.3), each begins at the root of their number.
  void ShrinkOutputs() {
    const double applications = static_cast<double>(steps_ + 2 * arch::kUniversalPlainApplications);
    const double sublayers = is_decoder_ ? 3 : 2;
    for (auto& parameter : block_->named_parameters())
      if (parameter.key().ends_with(".o.weight") || parameter.key().ends_with(".wo.weight"))
        parameter.value().mul_(std::pow(applications * sublayers, -0.5));
  }

  using Apply = std::function<at::Tensor(const at::Tensor& x_btd, int64_t application)>;

  at::Tensor Run(at::Tensor x_btd, const StackContext& context, const Apply& apply) {
    int64_t application = 0;
    for (int64_t i = 0; i < arch::kUniversalPlainApplications; ++i) x_btd = apply(x_btd, application++);
    x_btd = halt_ ? RecurUntilHalted(x_btd, context, application, apply) : Recur(x_btd, application, apply);
    application += steps_;
    for (int64_t i = 0; i < arch::kUniversalPlainApplications; ++i) x_btd = apply(x_btd, application++);
    return final_norm_->forward(x_btd);
  }

  at::Tensor Recur(at::Tensor x_btd, int64_t application, const Apply& apply) {
    for (int64_t step = 0; step < steps_; ++step) x_btd = apply(x_btd + (**signal_)[step], application + step);
    return x_btd;
  }

  // A position that has halted keeps its state, which the others go on reading.
  at::Tensor RecurUntilHalted(at::Tensor x_btd, const StackContext& context, int64_t application, const Apply& apply) {
    Halting halting(x_btd);
    for (int64_t step = 0; step < steps_; ++step) {
      const at::Tensor seen = x_btd + (**signal_)[step];
      halting.Decide(seen, **halt_, /*last=*/step + 1 == steps_);
      x_btd = at::where(halting.running(), apply(seen, application + step), x_btd);
      halting.Add(x_btd);
    }
    if (context.side != nullptr && context.token_bt.defined())
      context.side->AddMean(is_decoder_ ? "decoder_ponder_steps" : "encoder_ponder_steps",
                            (halting.steps() * context.token_bt).sum(), context.token_bt.sum());
    return halting.mean_state();
  }

  bool is_decoder_, is_gated_;
  int64_t d_model_, depth_, steps_;
  std::shared_ptr<Weight> table_, signal_, halt_;
  std::shared_ptr<Block> block_;
  std::shared_ptr<RmsNorm> final_norm_;
};

}  // namespace

std::shared_ptr<Model> MakeUniversal(const ModelSpec& spec, uint64_t seed) {
  BackboneParts parts;
  parts.untied_output = true;
  parts.constant_coordinate = IsGated(spec);
  parts.stack = [](const ModelSpec& own, bool is_decoder) { return std::make_shared<UniversalStack>(own, is_decoder); };
  return std::make_shared<EncoderDecoder>(spec, parts, seed);
}

}  // namespace allometry::trainer
