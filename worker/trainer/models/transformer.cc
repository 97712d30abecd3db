#include "worker/trainer/models/transformer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/autograd.h>

#include <cmath>

#include "worker/trainer/layers/t5_layers.h"

namespace allometry::trainer {
namespace {

// Self-attention, in the decoder cross-attention, feed-forward.
class Block : public torch::nn::Module {
 public:
  Block(const ModelSpec& spec, bool is_decoder, bool with_table) {
    torch::nn::ModuleList layers;
    self_ = std::make_shared<AttentionLayer>(spec.shape, false, with_table, spec.dropout);
    layers->push_back(self_);
    if (is_decoder) {
      cross_ = std::make_shared<AttentionLayer>(spec.shape, true, false, spec.dropout);
      layers->push_back(cross_);
    }
    feed_forward_ = std::make_shared<FeedForwardLayer>(spec.shape.d_model, spec.shape.d_ff, spec.dropout);
    layers->push_back(feed_forward_);
    register_module("layer", layers);
  }

  void Initialise(at::Generator generator) {
    self_->attention().Initialise(generator);
    if (cross_) cross_->attention().Initialise(generator);
    feed_forward_->Initialise(generator);
  }
  at::Tensor Encode(const at::Tensor& x, const at::Tensor& bias) {
    return feed_forward_->forward(self_->forward(x, bias));
  }
  at::Tensor Decode(const at::Tensor& x, const at::Tensor& bias, const at::Tensor& memory, const at::Tensor& memory_mask) {
    return feed_forward_->forward(cross_->forward(self_->forward(x, bias), memory, memory_mask));
  }
  Attention& self_attention() { return self_->attention(); }

 private:
  std::shared_ptr<AttentionLayer> self_, cross_;
  std::shared_ptr<FeedForwardLayer> feed_forward_;
};

class Stack : public torch::nn::Module {
 public:
  Stack(const ModelSpec& spec, bool is_decoder) : is_decoder_(is_decoder), dropout_(spec.dropout) {
    torch::nn::ModuleList list;
    const int64_t layers = is_decoder ? spec.shape.decoder_layers : spec.shape.encoder_layers;
    for (int64_t i = 0; i < layers; ++i) {
      blocks_.push_back(std::make_shared<Block>(spec, is_decoder, /*with_table=*/i == 0));
      list->push_back(blocks_.back());
    }
    register_module("block", list);
    final_norm_ = register_module("final_layer_norm", std::make_shared<RmsNorm>(spec.shape.d_model));
  }

  void Initialise(at::Generator generator) {
    for (auto& block : blocks_) block->Initialise(generator);
  }

  // x [b, s, d]; mask is added to the position bias; memory and its mask for the decoder only.
  at::Tensor forward(at::Tensor x, const at::Tensor& mask, const at::Tensor& memory, const at::Tensor& memory_mask) {
    const int64_t length = x.size(1);
    const at::Tensor bias =
        blocks_.front()->self_attention().PositionBias(length, length, !is_decoder_).to(x.scalar_type()) + mask;
    x = at::dropout(x, dropout_, is_training());
    for (auto& block : blocks_)
      x = is_decoder_ ? block->Decode(x, bias, memory, memory_mask) : block->Encode(x, bias);
    return at::dropout(final_norm_->forward(x), dropout_, is_training());
  }

 private:
  bool is_decoder_;
  double dropout_;
  std::vector<std::shared_ptr<Block>> blocks_;
  std::shared_ptr<RmsNorm> final_norm_;
};

class TransformerModel final : public Model {
 public:
  TransformerModel(const ModelSpec& spec, uint64_t seed) : d_model_(spec.shape.d_model) {
    shared_ = register_module("shared", torch::nn::Embedding(spec.shape.vocabulary, d_model_));
    encoder_ = register_module("encoder", std::make_shared<Stack>(spec, false));
    decoder_ = register_module("decoder", std::make_shared<Stack>(spec, true));
    const at::Generator generator = at::detail::createCPUGenerator(seed);
    FillNormal(shared_->weight, 1.0, generator);
    encoder_->Initialise(generator);
    decoder_->Initialise(generator);
  }

  at::Tensor Encode(const at::Tensor& inputs_bs) override {
    const at::Tensor x = shared_(inputs_bs);
    return encoder_->forward(x, PaddingMask(inputs_bs, x.scalar_type()), {}, {});
  }

  at::Tensor Decode(const at::Tensor& encoded_bsd, const at::Tensor& inputs_bs,
                    const at::Tensor& decoder_inputs_bt) override {
    const at::Tensor x = shared_(decoder_inputs_bt);
    const at::Tensor hidden = decoder_->forward(x, CausalMask(x.size(1), x.options()), encoded_bsd,
                                                PaddingMask(inputs_bs, x.scalar_type()));
    // The tied output embedding is scaled, since the input embedding has unit variance.
    return at::linear(hidden * std::pow(static_cast<double>(d_model_), -0.5), shared_->weight).to(at::kFloat);
  }

  Loss ComputeLoss(const Batch& batch) override {
    return {CrossEntropy(Logits(batch), batch.targets_bt, at::Reduction::Sum), {}};
  }

  at::Tensor TokenNll(const Batch& batch) override {
    torch::NoGradGuard no_grad;
    return CrossEntropy(Logits(batch), batch.targets_bt, at::Reduction::None).view_as(batch.targets_bt);
  }

 private:
  at::Tensor Logits(const Batch& batch) {
    return Decode(Encode(batch.inputs_bs), batch.inputs_bs, ShiftRight(batch.targets_bt));
  }
  static at::Tensor CrossEntropy(const at::Tensor& logits_btv, const at::Tensor& targets_bt, int64_t reduction) {
    return at::cross_entropy_loss(logits_btv.flatten(0, 1), targets_bt.flatten(), {}, reduction, /*ignore_index=*/0);
  }

  int64_t d_model_;
  torch::nn::Embedding shared_{nullptr};
  std::shared_ptr<Stack> encoder_, decoder_;
};

}  // namespace

std::shared_ptr<Model> MakeTransformer(const ModelSpec& spec, uint64_t seed) {
  return std::make_shared<TransformerModel>(spec, seed);
}

}  // namespace allometry::trainer
