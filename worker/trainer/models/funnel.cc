#include "worker/trainer/models/funnel.h"

#include <ATen/ATen.h>
#include <torch/nn/modules/container/modulelist.h>

#include "arch/funnel.h"
#include "worker/trainer/layers/pooling_attention.h"
#include "worker/trainer/models/encoder_decoder.h"

namespace allometry::trainer {
namespace {

// Whether an encoder layer is the first of the second or third block.
bool Pools(int64_t encoder_layers, int64_t index) {
  const auto layers = arch::FunnelBlockLayers(encoder_layers);
  return index == layers[0] || index == layers[0] + layers[1];
}

PoolWhat PoolOf(const ModelSpec& spec) {
  return spec.options.at("pool") == "query" ? PoolWhat::kQuery : PoolWhat::kAfterAttention;
}

// An encoder whose sequence is halved on the way. A bias depends on key minus query, and a pooled query i sits at 2 i:
// its row is that of position 2 i among unpooled queries. Between pooled queries and pooled keys it is that of their
// own indices.
class FunnelEncoder : public AnyStack {
 public:
  explicit FunnelEncoder(const ModelSpec& spec) : pool_(PoolOf(spec)), dropout_(spec.dropout) {
    BackboneParts parts;
    parts.mixer = [](const ModelSpec& s, const BlockPlace& place) -> std::shared_ptr<Sublayer> {
      if (Pools(s.shape.encoder_layers, place.index))
        return std::make_shared<PoolingAttentionSublayer>(s.shape, PoolOf(s), s.dropout);
      return std::make_shared<AttentionSublayer>(s.shape, /*is_cross=*/false, /*with_table=*/place.index == 0,
                                                 s.dropout);
    };
    torch::nn::ModuleList list;
    for (int64_t i = 0; i < spec.shape.encoder_layers; ++i) {
      blocks_.push_back(std::make_shared<Block>(spec, parts, BlockPlace{/*is_decoder=*/false, i}));
      list->push_back(blocks_.back());
    }
    register_module("block", list);
    final_norm_ = register_module("final_layer_norm", std::make_shared<RmsNorm>(spec.shape.d_model));
  }

  void Initialise(at::Generator generator) override {
    for (auto& block : blocks_) block->Initialise(generator);
  }

  at::Tensor forward(at::Tensor x_btd, StackContext context) override {
    context.positions.bias_hqk =
        PositionBias(blocks_.front()->mixer().PositionTable(), x_btd.size(1), /*causal=*/false);
    x_btd = Drop(x_btd, dropout_, is_training());
    const auto layers = static_cast<int64_t>(blocks_.size());
    for (int64_t i = 0; i < layers; ++i) {
      const StackContext next = Pools(layers, i) ? Pooled(context) : context;
      if (Pools(layers, i) && pool_ == PoolWhat::kQuery)
        context.positions.bias_hqk = context.positions.bias_hqk.slice(1, 0, std::nullopt, /*step=*/2).contiguous();
      x_btd = blocks_[static_cast<size_t>(i)]->forward(x_btd, context);
      context = next;
    }
    return Drop(final_norm_->forward(x_btd), dropout_, is_training());
  }

  at::Tensor Step(at::Tensor, StackContext, StackCache&) override {
    TORCH_CHECK(false, "an encoder does not go step by step");
  }

 private:
  // What the layers behind a pooling one share: half the positions, of which one is padding if both of its pair are.
  static StackContext Pooled(const StackContext& context) {
    const int64_t batch = context.mask_bs.size(0), half = context.mask_bs.size(1) / 2;
    StackContext pooled = context;
    pooled.mask_bs = context.mask_bs.view({batch, half, 2}).amax(2);
    pooled.keep_bs1 = context.keep_bs1.view({batch, half, 2}).amax(2, /*keepdim=*/true);
    pooled.token_bt = context.token_bt.view({batch, half, 2}).any(2);
    pooled.positions.bias_hqk = context.positions.bias_hqk.slice(1, 0, half).slice(2, 0, half).contiguous();
    return pooled;
  }

  PoolWhat pool_;
  double dropout_;
  std::vector<std::shared_ptr<Block>> blocks_;
  std::shared_ptr<RmsNorm> final_norm_;
};

}  // namespace

std::shared_ptr<Model> MakeFunnel(const ModelSpec& spec, uint64_t seed) {
  BackboneParts parts;
  parts.stack = [](const ModelSpec& s, bool is_decoder) -> std::shared_ptr<AnyStack> {
    if (is_decoder) return MakeStack(s, BackboneParts{}, is_decoder);
    return std::make_shared<FunnelEncoder>(s);
  };
  parts.encoder_shrink = arch::kFunnelMultiple;
  return std::make_shared<EncoderDecoder>(spec, parts, seed);
}

}  // namespace allometry::trainer
