#include "worker/trainer/models/evolved.h"

#include <torch/nn/modules/container/modulelist.h>

#include <cmath>
#include <vector>

#include "arch/evolved.h"
#include "worker/trainer/layers/evolved_layers.h"
#include "worker/trainer/layers/feed_forward.h"
#include "worker/trainer/layers/position_bias.h"
#include "worker/trainer/models/encoder_decoder.h"

namespace allometry::trainer {
namespace {

std::shared_ptr<Sublayer> EvolvedAttention(const ModelSpec& spec, bool is_cross) {
  return std::make_shared<AttentionSublayer>(spec.shape, is_cross, /*with_table=*/false, spec.dropout);
}

std::shared_ptr<Block> EncoderBlock(const ModelSpec& spec) {
  const int64_t d = spec.shape.d_model;
  return std::make_shared<Block>(std::vector<std::shared_ptr<Sublayer>>{
      std::make_shared<GatedLinearUnitSublayer>(d, spec.dropout),
      std::make_shared<EncoderConvolutionSublayer>(d, spec.dropout),
      EvolvedAttention(spec, /*is_cross=*/false),
      std::make_shared<FeedForwardSublayer>(d, spec.shape.d_ff, spec.dropout),
  });
}

std::shared_ptr<Block> DecoderBlock(const ModelSpec& spec, int64_t wide_heads) {
  const int64_t d = spec.shape.d_model;
  return std::make_shared<Block>(std::vector<std::shared_ptr<Sublayer>>{
      std::make_shared<DualAttentionSublayer>(spec.shape, wide_heads, spec.dropout),
      std::make_shared<DecoderConvolutionSublayer>(d, spec.dropout),
      EvolvedAttention(spec, /*is_cross=*/false),
      EvolvedAttention(spec, /*is_cross=*/true),
      std::make_shared<SwishFeedForwardSublayer>(d, spec.shape.d_ff, spec.dropout),
  });
}

// The same positions, whose gradients are summed apart.
Positions ViewsOf(Positions positions) {
  for (at::Tensor* tensor : {&positions.bias_hqk, &positions.table})
    if (tensor->defined()) *tensor = tensor->view_as(*tensor);
  return positions;
}

// Half as many blocks as the shape has layers. The stack itself owns the position tables: one for each number of heads.
class EvolvedStack : public AnyStack {
 public:
  EvolvedStack(const ModelSpec& spec, bool is_decoder)
      : is_decoder_(is_decoder), d_model_(spec.shape.d_model), depth_(spec.shape.d_kv), dropout_(spec.dropout) {
    const int64_t wide_heads = arch::EvolvedWideHeads(spec.shape, spec.options);
    table_ = AddWeight(this, "relative_attention_bias", {kRelativeBuckets, spec.shape.heads});
    if (is_decoder && wide_heads != spec.shape.heads)
      wide_table_ = AddWeight(this, "wide_relative_attention_bias", {kRelativeBuckets, wide_heads});
    torch::nn::ModuleList list;
    for (int64_t i = 0; i < (is_decoder ? spec.shape.decoder_layers : spec.shape.encoder_layers) / 2; ++i) {
      blocks_.push_back(is_decoder ? DecoderBlock(spec, wide_heads) : EncoderBlock(spec));
      list->push_back(blocks_.back());
    }
    register_module("block", list);
    final_norm_ = register_module("final_layer_norm", std::make_shared<RmsNorm>(d_model_));
  }

  void Initialise(at::Generator generator) override {
    const double sd = std::pow(static_cast<double>(d_model_), -0.5);
    FillNormal(**table_, sd, generator);
    if (wide_table_) FillNormal(**wide_table_, sd, generator);
    for (const auto& block : blocks_) block->Initialise(generator);
  }

  at::Tensor forward(at::Tensor x_btd, StackContext context) override {
    context.positions = PositionsFor(**table_, x_btd, depth_, /*causal=*/is_decoder_);
    context.wide_positions =
        wide_table_ ? PositionsFor(**wide_table_, x_btd, depth_, /*causal=*/true) : ViewsOf(context.positions);
    x_btd = Drop(x_btd, dropout_, is_training());
    for (const auto& block : blocks_) x_btd = block->forward(x_btd, context);
    return Drop(final_norm_->forward(x_btd), dropout_, is_training());
  }

  at::Tensor Step(at::Tensor x_b1d, StackContext context, StackCache& cache) override {
    cache.applications.resize(blocks_.size());
    context.positions.bias_hqk = PositionBiasRow(**table_, cache.position);
    context.wide_positions.bias_hqk =
        wide_table_ ? PositionBiasRow(**wide_table_, cache.position) : context.positions.bias_hqk;
    for (size_t i = 0; i < blocks_.size(); ++i) x_b1d = blocks_[i]->Step(x_b1d, context, cache.applications[i]);
    ++cache.position;
    return final_norm_->forward(x_b1d);
  }

 private:
  bool is_decoder_;
  int64_t d_model_, depth_;
  double dropout_;
  std::shared_ptr<Weight> table_, wide_table_;
  std::vector<std::shared_ptr<Block>> blocks_;
  std::shared_ptr<RmsNorm> final_norm_;
};

}  // namespace

std::shared_ptr<Model> MakeEvolved(const ModelSpec& spec, uint64_t seed) {
  BackboneParts parts;
  parts.stack = [](const ModelSpec& own, bool is_decoder) { return std::make_shared<EvolvedStack>(own, is_decoder); };
  return std::make_shared<EncoderDecoder>(spec, parts, seed);
}

}  // namespace allometry::trainer
