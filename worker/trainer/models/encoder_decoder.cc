#include "worker/trainer/models/encoder_decoder.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/nn/modules/container/modulelist.h>

#include "worker/trainer/layers/attention.h"
#include "worker/trainer/layers/cross_entropy.h"
#include "worker/trainer/layers/feed_forward.h"
#include "worker/trainer/layers/position_bias.h"

namespace allometry::trainer {
namespace {

std::shared_ptr<Sublayer> MakeMixer(const ModelSpec& spec, const BackboneParts& parts, const BlockPlace& place) {
  if (parts.mixer) return parts.mixer(spec, place);
  return std::make_shared<AttentionSublayer>(spec.shape, /*is_cross=*/false, /*with_table=*/place.index == 0,
                                             spec.dropout);
}

std::shared_ptr<Sublayer> MakeFeedForward(const ModelSpec& spec, const BackboneParts& parts, const BlockPlace& place) {
  if (parts.feed_forward) return parts.feed_forward(spec, place);
  return std::make_shared<FeedForwardSublayer>(spec.shape.d_model, spec.shape.d_ff, spec.dropout);
}

TokenTables::Options TableOptions(const ModelSpec& spec, const BackboneParts& parts) {
  return {spec.shape.vocabulary, spec.shape.d_model, parts.embedding_factor, parts.untied_output};
}

}  // namespace

Block::Block(const ModelSpec& spec, const BackboneParts& parts, const BlockPlace& place) {
  sublayers_.push_back(MakeMixer(spec, parts, place));
  if (place.is_decoder)
    sublayers_.push_back(
        std::make_shared<AttentionSublayer>(spec.shape, /*is_cross=*/true, /*with_table=*/false, spec.dropout));
  sublayers_.push_back(MakeFeedForward(spec, parts, place));
  torch::nn::ModuleList list;
  for (const auto& sublayer : sublayers_) list->push_back(sublayer);
  register_module("layer", list);
}

void Block::Initialise(at::Generator generator) {
  for (const auto& sublayer : sublayers_) sublayer->Initialise(generator);
}

at::Tensor Block::forward(at::Tensor x_btd, const StackContext& context) {
  for (const auto& sublayer : sublayers_) x_btd = sublayer->forward(x_btd, context);
  return x_btd;
}

Stack::Stack(const ModelSpec& spec, const BackboneParts& parts, bool is_decoder)
    : is_decoder_(is_decoder), dropout_(spec.dropout) {
  const int64_t layers = is_decoder ? spec.shape.decoder_layers : spec.shape.encoder_layers;
  const int64_t blocks = parts.shared_layers ? 1 : layers;
  applications_ = layers / blocks;
  torch::nn::ModuleList list;
  for (int64_t i = 0; i < blocks; ++i) {
    blocks_.push_back(std::make_shared<Block>(spec, parts, BlockPlace{is_decoder, i}));
    list->push_back(blocks_.back());
  }
  register_module("block", list);
  final_norm_ = register_module("final_layer_norm", std::make_shared<RmsNorm>(spec.shape.d_model));
}

void Stack::Initialise(at::Generator generator) {
  for (auto& block : blocks_) block->Initialise(generator);
}

at::Tensor Stack::forward(at::Tensor x_btd, StackContext context) {
  context.bias_hqk = blocks_.front()->mixer().PositionBias(x_btd.size(1), /*causal=*/is_decoder_);
  x_btd = Drop(x_btd, dropout_, is_training());
  for (int64_t i = 0; i < applications_; ++i)
    for (auto& block : blocks_) x_btd = block->forward(x_btd, context);
  return Drop(final_norm_->forward(x_btd), dropout_, is_training());
}

EncoderDecoder::EncoderDecoder(const ModelSpec& spec, const BackboneParts& parts, uint64_t seed)
    : d_model_(spec.shape.d_model), tables_(this, TableOptions(spec, parts)) {
  encoder_ = register_module("encoder", std::make_shared<Stack>(spec, parts, /*is_decoder=*/false));
  decoder_ = register_module("decoder", std::make_shared<Stack>(spec, parts, /*is_decoder=*/true));
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  tables_.Initialise(generator);
  encoder_->Initialise(generator);
  decoder_->Initialise(generator);
}

at::Tensor EncoderDecoder::Encode(const at::Tensor& inputs_bs) {
  const at::Tensor x = tables_.Embed(inputs_bs);
  StackContext context;
  context.mask_bs = PaddingMask(inputs_bs, x.scalar_type());
  context.keep_bs1 = (inputs_bs != 0).to(x.scalar_type()).unsqueeze(-1);
  return encoder_->forward(x, context);
}

// The decoder needs no mask of its own padding: it follows all targets, and nothing looks ahead.
at::Tensor EncoderDecoder::DecodeHidden(const at::Tensor& encoded_bsd, const at::Tensor& inputs_bs,
                                        const at::Tensor& decoder_inputs_bt) {
  const at::Tensor x = tables_.Embed(decoder_inputs_bt);
  StackContext context;
  context.memory_bsd = encoded_bsd;
  context.memory_mask_bs = PaddingMask(inputs_bs, x.scalar_type());
  return decoder_->forward(x, context).view({-1, d_model_});
}

at::Tensor EncoderDecoder::Decode(const at::Tensor& encoded_bsd, const at::Tensor& inputs_bs,
                                  const at::Tensor& decoder_inputs_bt) {
  const TokenTables::Head head = tables_.OutputHead(DecodeHidden(encoded_bsd, inputs_bs, decoder_inputs_bt));
  const at::Tensor logits = at::linear(head.hidden_ne, head.table_ve);
  const auto type = logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return logits.to(type).view({decoder_inputs_bt.size(0), decoder_inputs_bt.size(1), -1});
}

TokenTables::Head EncoderDecoder::HeadOf(const Batch& batch) {
  return tables_.OutputHead(DecodeHidden(Encode(batch.inputs_bs), batch.inputs_bs, ShiftRight(batch.targets_bt)));
}

Loss EncoderDecoder::ComputeLoss(const Batch& batch) {
  const TokenTables::Head head = HeadOf(batch);
  return {LinearCrossEntropySum(head.hidden_ne, head.table_ve, batch.targets_bt.flatten()), {}};
}

at::Tensor EncoderDecoder::TokenNll(const Batch& batch) {
  at::NoGradGuard no_grad;
  const TokenTables::Head head = HeadOf(batch);
  return LinearCrossEntropyRows(head.hidden_ne, head.table_ve, batch.targets_bt.flatten())
      .view(batch.targets_bt.sizes());
}

}  // namespace allometry::trainer
