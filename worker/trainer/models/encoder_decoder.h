#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "worker/trainer/layers/sublayer.h"
#include "worker/trainer/models/model.h"
#include "worker/trainer/models/output_layer.h"
#include "worker/trainer/models/token_tables.h"

namespace allometry::trainer {

// Where a block stands.
struct BlockPlace {
  bool is_decoder = false;
  int64_t index = 0;
};

// What the sublayers of one application of a block, and the applications of a stack's blocks, remember.
using BlockCache = std::vector<LayerCache>;
struct StackCache {
  std::vector<BlockCache> applications;  // empty at the first step
  int64_t position = 0;
};

// The encoder or the decoder as the model sees it.
class AnyStack : public torch::nn::Module {
 public:
  virtual void Initialise(at::Generator generator) = 0;
  // Fills in the position bias of `context`, which the caller has given the masks.
  virtual at::Tensor forward(at::Tensor x_btd, StackContext context) = 0;
  // One further position of the decoder; see Sublayer::Step.
  virtual at::Tensor Step(at::Tensor x_b1d, StackContext context, StackCache& cache) = 0;
};

// What an architecture changes of the shared backbone (T5 v1.0, Raffel et al. 2020, arXiv 1910.10683). Unset parts are
// the backbone's own.
struct BackboneParts {
  using Maker = std::function<std::shared_ptr<Sublayer>(const ModelSpec&, const BlockPlace&)>;
  using StackMaker = std::function<std::shared_ptr<AnyStack>(const ModelSpec&, bool is_decoder)>;
  StackMaker stack;            // by default Stack, which the parts below describe
  Maker mixer;                 // the first part of a block, by default self-attention with the stack's table in block 0
  Maker feed_forward;          // the last part
  bool shared_layers = false;  // one block per stack, applied once for each layer
  int64_t embedding_factor = 0;
  std::function<std::shared_ptr<OutputLayer>(const ModelSpec&)> output;  // by default one product with the output table
  bool untied_output = false;
  bool constant_coordinate = false;   // the first coordinate of every embedding begins as 1: see GruGate
  std::string float32_weights;        // ends the names of parameters that stay float32 in bfloat16 models; empty = none
  bool sinusoidal_positions = false;  // fixed, added to the embeddings of both stacks
  int64_t encoder_shrink = 1;         // inputs under one of the encoder's outputs; they pad to a multiple of it
};

// Self-attention (or what the architecture has in its place), in the decoder cross-attention, feed-forward.
class Block : public torch::nn::Module {
 public:
  Block(const ModelSpec& spec, const BackboneParts& parts, const BlockPlace& place);
  explicit Block(std::vector<std::shared_ptr<Sublayer>> sublayers);
  void Initialise(at::Generator generator);
  // With context.recompute nothing between x and the result is kept; the block must then outlive the backward pass.
  at::Tensor forward(const at::Tensor& x_btd, const StackContext& context);
  at::Tensor Step(at::Tensor x_b1d, const StackContext& context, BlockCache& cache);
  Sublayer& mixer() { return *sublayers_.front(); }

 private:
  void RegisterSublayers();
  at::Tensor Apply(at::Tensor x_btd, const StackContext& context);
  at::Tensor ApplyTwice(const at::Tensor& x_btd, const StackContext& context);

  std::vector<std::shared_ptr<Sublayer>> sublayers_;
};

// A stack of blocks and its final norm; the encoder or the decoder.
class Stack : public AnyStack {
 public:
  Stack(const ModelSpec& spec, const BackboneParts& parts, bool is_decoder);
  void Initialise(at::Generator generator) override;
  at::Tensor forward(at::Tensor x_btd, StackContext context) override;
  at::Tensor Step(at::Tensor x_b1d, StackContext context, StackCache& cache) override;

 private:
  bool is_decoder_;
  int64_t depth_;  // of a head
  double dropout_;
  int64_t applications_;  // of the list of blocks: the layers, if one block is shared
  std::vector<std::shared_ptr<Block>> blocks_;
  std::shared_ptr<RmsNorm> final_norm_;
};

// What `parts` says: its own stack, or one of the backbone's outline.
std::shared_ptr<AnyStack> MakeStack(const ModelSpec& spec, const BackboneParts& parts, bool is_decoder);

// The encoder-decoder of all architectures that keep the backbone's outline.
class EncoderDecoder : public Model {
 public:
  EncoderDecoder(const ModelSpec& spec, const BackboneParts& parts, uint64_t seed);
  at::Tensor Encode(const at::Tensor& inputs_bs) override;
  at::Tensor Decode(const at::Tensor& encoded_bsd, const at::Tensor& inputs_bs,
                    const at::Tensor& decoder_inputs_bt) override;
  std::unique_ptr<DecodeState> StartDecoding(const at::Tensor& encoded_bsd, const at::Tensor& inputs_bs) override;
  at::Tensor DecodeNext(DecodeState& state, const at::Tensor& ids_b) override;
  Loss ComputeLoss(const Batch& batch) override;
  at::Tensor TokenNll(const Batch& batch) override;
  bool StaysFloat32(const std::string& parameter) const override;

 private:
  // What the decoder knows of the encoder: its output and which of it is padding.
  StackContext DecoderContext(const at::Tensor& encoded_bsd, const at::Tensor& inputs_bs) const;
  // `token_bt` as in StackContext; `side` may be null.
  at::Tensor EncodeWith(const at::Tensor& inputs_bs, SideTerms* side);
  at::Tensor DecodeHidden(const at::Tensor& encoded_bsd, const at::Tensor& inputs_bs,
                          const at::Tensor& decoder_inputs_bt, const at::Tensor& token_bt, SideTerms* side);
  at::Tensor DecodeBatch(const Batch& batch, SideTerms* side);  // [n, d]
  at::Tensor PadInputs(const at::Tensor& inputs_bs) const;      // to what the encoder takes
  at::Tensor Embed(const at::Tensor& ids_bt, int64_t first_position) const;
  ZLoss LossSums(const at::Tensor& decoded_nd, const at::Tensor& targets_n) const;
  at::Tensor Logits(const at::Tensor& decoded_nd) const;  // [n, v], float32, or float64 for float64

  int64_t d_model_;
  double z_loss_;
  bool sinusoidal_positions_;
  int64_t encoder_shrink_;
  std::string float32_weights_;
  TokenTables tables_;
  std::shared_ptr<AnyStack> encoder_, decoder_;
  std::shared_ptr<OutputLayer> output_;  // null: one product with the output table
};

}  // namespace allometry::trainer
