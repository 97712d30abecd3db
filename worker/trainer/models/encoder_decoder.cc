#include "worker/trainer/models/encoder_decoder.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/nn/modules/container/modulelist.h>

#include <utility>

#include "worker/trainer/layers/attention.h"
#include "worker/trainer/layers/cross_entropy.h"
#include "worker/trainer/layers/feed_forward.h"
#include "worker/trainer/layers/position_bias.h"
#include "worker/trainer/layers/recompute.h"

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
  return {spec.shape.vocabulary, spec.shape.d_model, parts.embedding_factor, parts.untied_output,
          parts.constant_coordinate};
}

// Positions of a decoder's inputs that hold a token. The start mark at the front looks like padding and is none.
at::Tensor DecoderTokens(const at::Tensor& ids_bt) {
  return (ids_bt != 0).logical_or(at::arange(ids_bt.size(1), ids_bt.options()) == 0);
}

// sin and cos of position / 10000^(2 i / d) in columns 2 i and 2 i + 1 (Vaswani et al. 2017, arXiv 1706.03762), [t, d].
at::Tensor Sinusoids(int64_t first_position, const at::Tensor& like_btd) {
  const int64_t length = like_btd.size(1), d = like_btd.size(2);
  const auto options = like_btd.options().dtype(at::kDouble).requires_grad(false);
  const at::Tensor position = at::arange(first_position, first_position + length, options).unsqueeze(1);
  const at::Tensor angle = position * at::pow(10000.0, at::arange(0, d, 2, options) / -static_cast<double>(d));
  return at::stack({angle.sin(), angle.cos()}, 2).flatten(1).slice(1, 0, d).to(like_btd.scalar_type());
}

struct StackDecodeState : DecodeState {
  StackContext context;
  StackCache cache;
};

}  // namespace

Block::Block(const ModelSpec& spec, const BackboneParts& parts, const BlockPlace& place) {
  sublayers_.push_back(MakeMixer(spec, parts, place));
  if (place.is_decoder)
    sublayers_.push_back(
        std::make_shared<AttentionSublayer>(spec.shape, /*is_cross=*/true, /*with_table=*/false, spec.dropout));
  sublayers_.push_back(MakeFeedForward(spec, parts, place));
  RegisterSublayers();
}

Block::Block(std::vector<std::shared_ptr<Sublayer>> sublayers) : sublayers_(std::move(sublayers)) {
  RegisterSublayers();
}

void Block::RegisterSublayers() {
  torch::nn::ModuleList list;
  for (const auto& sublayer : sublayers_) list->push_back(sublayer);
  register_module("layer", list);
}

void Block::Initialise(at::Generator generator) {
  for (const auto& sublayer : sublayers_) sublayer->Initialise(generator);
}

at::Tensor Block::forward(const at::Tensor& x_btd, const StackContext& context) {
  if (!at::GradMode::is_enabled()) return Apply(x_btd, context);
  if (context.recompute) return ApplyTwice(x_btd, context);
  // Views of its own: gradients of what blocks share are summed within a block first, in ApplyTwice's order.
  StackContext own = context;
  for (at::Tensor* tensor : own.Differentiable())
    if (tensor->defined()) *tensor = tensor->view_as(*tensor);
  return Apply(x_btd, own);
}

at::Tensor Block::Apply(at::Tensor x_btd, const StackContext& context) {
  for (const auto& sublayer : sublayers_) x_btd = sublayer->forward(x_btd, context);
  return x_btd;
}

// What the block adds to the loss leaves it as a second output, so that its gradient finds the way back; means are
// reported once.
at::Tensor Block::ApplyTwice(const at::Tensor& x_btd, const StackContext& context) {
  StackContext own = context;
  std::vector<at::Tensor> inputs{x_btd};
  for (at::Tensor* tensor : own.Differentiable())
    if (tensor->defined()) {
      inputs.push_back(*tensor);
      *tensor = tensor->detach();  // `run` must not keep the graph it is part of
    }
  const auto means = std::make_shared<std::map<std::string, MeanSums>>();
  const auto run = [this, own, means](const std::vector<at::Tensor>& given) {
    StackContext inner = own;
    SideTerms side;
    if (inner.side) inner.side = &side;
    size_t next = 1;
    for (at::Tensor* tensor : inner.Differentiable())
      if (tensor->defined()) *tensor = given[next++];
    std::vector<at::Tensor> outputs{Apply(given[0], inner)};
    if (side.auxiliary.defined()) outputs.push_back(side.auxiliary);
    *means = side.means;
    return outputs;
  };
  const std::vector<at::Tensor> outputs = Recompute(run, inputs, parameters());
  if (outputs.size() > 1) context.side->AddAuxiliary(outputs[1]);
  if (context.side)
    for (const auto& [name, mean] : *means) context.side->AddMean(name, mean.sum, mean.count);
  return outputs[0];
}

at::Tensor Block::Step(at::Tensor x_b1d, const StackContext& context, BlockCache& cache) {
  cache.resize(sublayers_.size());
  for (size_t i = 0; i < sublayers_.size(); ++i) {
    x_b1d = sublayers_[i]->Step(x_b1d, context, cache[i]);
    ++cache[i].position;
  }
  return x_b1d;
}

Stack::Stack(const ModelSpec& spec, const BackboneParts& parts, bool is_decoder)
    : is_decoder_(is_decoder), depth_(spec.shape.d_kv), dropout_(spec.dropout) {
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
  context.positions = PositionsFor(blocks_.front()->mixer().PositionTable(), x_btd, depth_, /*causal=*/is_decoder_);
  x_btd = Drop(x_btd, dropout_, is_training());
  for (int64_t i = 0; i < applications_; ++i)
    for (auto& block : blocks_) x_btd = block->forward(x_btd, context);
  return Drop(final_norm_->forward(x_btd), dropout_, is_training());
}

at::Tensor Stack::Step(at::Tensor x_b1d, StackContext context, StackCache& cache) {
  const int64_t blocks = static_cast<int64_t>(blocks_.size());
  cache.applications.resize(static_cast<size_t>(applications_ * blocks));
  if (const at::Tensor table = blocks_.front()->mixer().PositionTable(); table.defined())
    context.positions.bias_hqk = PositionBiasRow(table, cache.position);
  for (int64_t i = 0; i < applications_ * blocks; ++i)
    x_b1d = blocks_[static_cast<size_t>(i % blocks)]->Step(x_b1d, context, cache.applications[static_cast<size_t>(i)]);
  ++cache.position;
  return final_norm_->forward(x_b1d);
}

std::shared_ptr<AnyStack> MakeStack(const ModelSpec& spec, const BackboneParts& parts, bool is_decoder) {
  if (parts.stack) return parts.stack(spec, is_decoder);
  return std::make_shared<Stack>(spec, parts, is_decoder);
}

EncoderDecoder::EncoderDecoder(const ModelSpec& spec, const BackboneParts& parts, uint64_t seed)
    : d_model_(spec.shape.d_model),
      z_loss_(spec.z_loss),
      sinusoidal_positions_(parts.sinusoidal_positions),
      encoder_shrink_(parts.encoder_shrink),
      float32_weights_(parts.float32_weights),
      tables_(this, TableOptions(spec, parts)) {
  encoder_ = register_module("encoder", MakeStack(spec, parts, /*is_decoder=*/false));
  decoder_ = register_module("decoder", MakeStack(spec, parts, /*is_decoder=*/true));
  if (parts.output) output_ = register_module("output", parts.output(spec));
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  tables_.Initialise(generator);
  encoder_->Initialise(generator);
  decoder_->Initialise(generator);
  if (output_) output_->Initialise(generator);
}

at::Tensor EncoderDecoder::Encode(const at::Tensor& inputs_bs) { return EncodeWith(inputs_bs, nullptr); }

at::Tensor EncoderDecoder::PadInputs(const at::Tensor& inputs_bs) const {
  const int64_t rest = inputs_bs.size(1) % encoder_shrink_;
  return rest == 0 ? inputs_bs : at::constant_pad_nd(inputs_bs, {0, encoder_shrink_ - rest}, 0);
}

at::Tensor EncoderDecoder::Embed(const at::Tensor& ids_bt, int64_t first_position) const {
  const at::Tensor x = tables_.Embed(ids_bt);
  return sinusoidal_positions_ ? x + Sinusoids(first_position, x) : x;
}

at::Tensor EncoderDecoder::EncodeWith(const at::Tensor& unpadded_bs, SideTerms* side) {
  const at::Tensor inputs_bs = PadInputs(unpadded_bs), x = Embed(inputs_bs, 0);
  StackContext context;
  context.side = side;
  context.recompute = recompute();
  context.token_bt = inputs_bs != 0;
  context.mask_bs = PaddingMask(inputs_bs, x.scalar_type());
  context.keep_bs1 = (inputs_bs != 0).to(x.scalar_type()).unsqueeze(-1);
  return encoder_->forward(x, context);
}

// The decoder needs no mask of its own padding: it follows all targets, and nothing looks ahead.
StackContext EncoderDecoder::DecoderContext(const at::Tensor& encoded_bsd, const at::Tensor& inputs_bs) const {
  StackContext context;
  context.memory_bsd = encoded_bsd;
  // One of the encoder's outputs is padding if all inputs under it are.
  const at::Tensor ids_bsn = PadInputs(inputs_bs).unflatten(1, {-1, encoder_shrink_});
  context.memory_mask_bs = PaddingMask(ids_bsn.amax(2), encoded_bsd.scalar_type());
  return context;
}

at::Tensor EncoderDecoder::DecodeHidden(const at::Tensor& encoded_bsd, const at::Tensor& inputs_bs,
                                        const at::Tensor& decoder_inputs_bt, const at::Tensor& token_bt,
                                        SideTerms* side) {
  const at::Tensor x = Embed(decoder_inputs_bt, 0);
  StackContext context = DecoderContext(encoded_bsd, inputs_bs);
  context.token_bt = token_bt;
  context.side = side;
  context.recompute = recompute();
  return decoder_->forward(x, context).view({-1, d_model_});
}

at::Tensor EncoderDecoder::Decode(const at::Tensor& encoded_bsd, const at::Tensor& inputs_bs,
                                  const at::Tensor& decoder_inputs_bt) {
  return Logits(DecodeHidden(encoded_bsd, inputs_bs, decoder_inputs_bt, DecoderTokens(decoder_inputs_bt), nullptr))
      .view({decoder_inputs_bt.size(0), decoder_inputs_bt.size(1), -1});
}

at::Tensor EncoderDecoder::Logits(const at::Tensor& decoded_nd) const {
  if (output_) return output_->Logits(decoded_nd, tables_);
  const TokenTables::Head head = tables_.OutputHead(decoded_nd);
  const at::Tensor logits = at::linear(head.hidden_ne, head.table_ve);
  return logits.to(logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

std::unique_ptr<DecodeState> EncoderDecoder::StartDecoding(const at::Tensor& encoded_bsd, const at::Tensor& inputs_bs) {
  auto state = std::make_unique<StackDecodeState>();
  state->context = DecoderContext(encoded_bsd, inputs_bs);
  return state;
}

at::Tensor EncoderDecoder::DecodeNext(DecodeState& state, const at::Tensor& ids_b) {
  at::NoGradGuard no_grad;
  auto& own = dynamic_cast<StackDecodeState&>(state);
  own.context.token_bt = own.cache.position == 0 ? DecoderTokens(ids_b.unsqueeze(1)) : ids_b.unsqueeze(1) != 0;
  const at::Tensor x = Embed(ids_b.unsqueeze(1), own.cache.position);
  return Logits(decoder_->Step(x, own.context, own.cache).view({-1, d_model_}));
}

at::Tensor EncoderDecoder::DecodeBatch(const Batch& batch, SideTerms* side) {
  return DecodeHidden(EncodeWith(batch.inputs_bs, side), batch.inputs_bs, ShiftRight(batch.targets_bt),
                      batch.targets_bt != 0, side);
}

Loss EncoderDecoder::ComputeLoss(const Batch& batch) {
  Loss loss;
  const at::Tensor decoded = DecodeBatch(batch, &loss.side), targets = batch.targets_bt.flatten();
  const ZLoss sums = LossSums(decoded, targets);
  loss.nll_sum = z_loss_ == 0 ? sums.objective_sum : sums.nll_sum;
  if (z_loss_ != 0) loss.objective_sum = sums.objective_sum;
  return loss;
}

ZLoss EncoderDecoder::LossSums(const at::Tensor& decoded_nd, const at::Tensor& targets_n) const {
  if (output_) return output_->LossSums(decoded_nd, tables_, targets_n, z_loss_);
  const TokenTables::Head head = tables_.OutputHead(decoded_nd);
  return LinearCrossEntropyWithZLoss(head.hidden_ne, head.table_ve, targets_n, z_loss_);
}

bool EncoderDecoder::StaysFloat32(const std::string& parameter) const {
  return !float32_weights_.empty() && parameter.ends_with(float32_weights_);
}

at::Tensor EncoderDecoder::TokenNll(const Batch& batch) {
  at::NoGradGuard no_grad;
  const at::Tensor decoded = DecodeBatch(batch, nullptr), targets = batch.targets_bt.flatten();
  if (output_) return output_->NllRows(decoded, tables_, targets).view(batch.targets_bt.sizes());
  const TokenTables::Head head = tables_.OutputHead(decoded);
  return LinearCrossEntropyRows(head.hidden_ne, head.table_ve, targets).view(batch.targets_bt.sizes());
}

}  // namespace allometry::trainer
