#pragma once

#include <memory>

#include "worker/trainer/models/model.h"

namespace allometry::trainer {

// Another model in all it does: for tests that change one thing of it.
class ForwardingModel : public Model {
 public:
  explicit ForwardingModel(const std::shared_ptr<Model>& inner) : inner_(register_module("inner", inner)) {}
  at::Tensor Encode(const at::Tensor& inputs_bs) override { return inner_->Encode(inputs_bs); }
  at::Tensor Decode(const at::Tensor& encoded_bsd, const at::Tensor& inputs_bs,
                    const at::Tensor& decoder_inputs_bt) override {
    return inner_->Decode(encoded_bsd, inputs_bs, decoder_inputs_bt);
  }
  std::unique_ptr<DecodeState> StartDecoding(const at::Tensor& encoded_bsd, const at::Tensor& inputs_bs) override {
    return inner_->StartDecoding(encoded_bsd, inputs_bs);
  }
  at::Tensor DecodeNext(DecodeState& state, const at::Tensor& ids_b) override {
    return inner_->DecodeNext(state, ids_b);
  }
  Loss ComputeLoss(const Batch& batch) override { return inner_->ComputeLoss(batch); }
  at::Tensor TokenNll(const Batch& batch) override { return inner_->TokenNll(batch); }

 protected:
  std::shared_ptr<Model> inner_;
};

}  // namespace allometry::trainer
