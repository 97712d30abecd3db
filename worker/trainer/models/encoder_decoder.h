#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "worker/trainer/layers/sublayer.h"
#include "worker/trainer/models/model.h"
#include "worker/trainer/models/token_tables.h"

namespace allometry::trainer {

// Where a block stands.
struct BlockPlace {
  bool is_decoder = false;
  int64_t index = 0;
};

// What an architecture changes of the shared backbone (T5 v1.0, Raffel et al. 2020, arXiv 1910.10683). Unset parts are
// the backbone's own.
struct BackboneParts {
  using Maker = std::function<std::shared_ptr<Sublayer>(const ModelSpec&, const BlockPlace&)>;
  Maker mixer;                 // the first part of a block, by default self-attention with the stack's table in block 0
  Maker feed_forward;          // the last part
  bool shared_layers = false;  // one block per stack, applied once for each layer
  int64_t embedding_factor = 0;
  bool untied_output = false;
};

// Self-attention (or what the architecture has in its place), in the decoder cross-attention, feed-forward.
class Block : public torch::nn::Module {
 public:
  Block(const ModelSpec& spec, const BackboneParts& parts, const BlockPlace& place);
  void Initialise(at::Generator generator);
  at::Tensor forward(at::Tensor x_btd, const StackContext& context);
  Sublayer& mixer() { return *sublayers_.front(); }

 private:
  std::vector<std::shared_ptr<Sublayer>> sublayers_;
};

// A stack of blocks and its final norm; the encoder or the decoder.
class Stack : public torch::nn::Module {
 public:
  Stack(const ModelSpec& spec, const BackboneParts& parts, bool is_decoder);
  void Initialise(at::Generator generator);
  // Fills in the position bias of `context`, which the caller has given the masks.
  at::Tensor forward(at::Tensor x_btd, StackContext context);

 private:
  bool is_decoder_;
  double dropout_;
  int64_t applications_;  // of the list of blocks: the layers, if one block is shared
  std::vector<std::shared_ptr<Block>> blocks_;
  std::shared_ptr<RmsNorm> final_norm_;
};

// The encoder-decoder of all architectures that keep the backbone's outline.
class EncoderDecoder : public Model {
 public:
  EncoderDecoder(const ModelSpec& spec, const BackboneParts& parts, uint64_t seed);
  at::Tensor Encode(const at::Tensor& inputs_bs) override;
  at::Tensor Decode(const at::Tensor& encoded_bsd, const at::Tensor& inputs_bs,
                    const at::Tensor& decoder_inputs_bt) override;
  Loss ComputeLoss(const Batch& batch) override;
  at::Tensor TokenNll(const Batch& batch) override;

 private:
  at::Tensor DecodeHidden(const at::Tensor& encoded_bsd, const at::Tensor& inputs_bs,
                          const at::Tensor& decoder_inputs_bt);
  TokenTables::Head HeadOf(const Batch& batch);

  int64_t d_model_;
  TokenTables tables_;
  std::shared_ptr<Stack> encoder_, decoder_;
};

}  // namespace allometry::trainer
