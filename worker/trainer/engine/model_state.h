#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "common/result.h"
#include "worker/trainer/distributed/gradient_reducer.h"
#include "worker/trainer/models/model.h"
#include "worker/trainer/optim/optimizer.h"

namespace allometry::trainer {

// A model with its float32 masters. In fp32 the masters are the model's own parameters; in bf16 the model computes with
// rounded copies that PublishWeights refreshes, but for the parameters of Model::StaysFloat32. In float64, which is for
// tests of numerics, the masters and all that is said of them below are float64. Not thread-safe.
class ModelState {
 public:
  // Moves the model to the device and, for bf16, rounds its parameters after the masters were taken. `type`: float32,
  // bfloat16 or float64.
  ModelState(std::shared_ptr<Model> model, at::Device device, at::ScalarType type);
  ~ModelState();

  // Says which parameters are this rank's parts along the first dimension, the others being on the other ranks, in
  // their order. At most once, before anything else; `collective` outlives this.
  void SetDivided(Collective* collective, const std::set<std::string>& names);
  // Puts the whole of divided parameters into the model, as evaluation needs it, and this rank's parts back. All ranks
  // must call these together. After MakeWholeForGood the masters are whole too, and no training follows.
  void MakeWhole();
  void MakeDivided();
  void MakeWholeForGood();
  bool IsDivided(size_t i) const { return divided_[i]; }

  Model& model() { return *model_; }
  const std::vector<TrainedTensor>& masters() const { return masters_; }
  std::vector<at::Tensor> SharedMasters() const;  // those that are not divided
  int64_t ParameterCount() const;

  // From now on Gradients are the sums over all ranks, but of divided parameters, which have all ranks' already. The
  // reducer is of SharedMasters and must be there as long as this model is trained.
  void ReduceOverRanks(GradientReducer* reducer);
  // The next backward pass is the step's last one: gradients go to the other ranks as they come.
  void BeginLastPass() { last_pass_ = true; }

  // Adds the gradients of the last backward pass to the sums, and forgets them in the model. In fp32 nothing is moved:
  // LibTorch itself adds the gradients of several passes.
  void CollectGradients();
  // The sums since the last ClearGradients, float32, in the order of the masters; undefined where none came, or where
  // another rank owns the tensor. With ranks once a step.
  std::vector<at::Tensor> Gradients();
  void ClearGradients();
  // Forgets a step that is not taken to its end.
  void AbandonStep();

  // Rounds the masters into the model's copies; needed after each change of the masters.
  void PublishWeights();
  // The copies that are rounded, in the order of the masters, sharing their memory; undefined where there is none. Who
  // changes a master writes its copy, or calls PublishWeights.
  std::vector<at::Tensor> Copies() const;

  // Masters and persistent buffers by name, whole: all ranks must call this together where some are divided. The other
  // masters share the model's memory, which an optimiser's step changes and nothing else does; buffers, which a model
  // may draw again at the beginning of a step, are copies.
  std::map<std::string, at::Tensor> Weights() const;
  // From whole tensors. kDataLoss names the first tensor that is missing or has another shape.
  common::Status LoadWeights(const std::map<std::string, at::Tensor>& weights);

 private:
  at::Tensor WholeOf(size_t i) const;
  at::Tensor PartOf(size_t i, const at::Tensor& whole) const;
  at::Tensor TakeGradient(size_t i);
  void PassOn(size_t i);

  std::shared_ptr<Model> model_;
  bool bf16_;
  GradientReducer* reducer_ = nullptr;
  Collective* collective_ = nullptr;       // of divided parameters
  std::vector<bool> divided_;              // by parameter
  std::vector<size_t> place_;              // by parameter: among those that are not divided
  std::vector<at::Tensor> parts_;          // by parameter, while the model holds the whole
  std::vector<at::Tensor> own_gradients_;  // of divided parameters, in the last pass
  bool last_pass_ = false;
  std::vector<at::Tensor> parameters_;
  std::vector<TrainedTensor> masters_;
  std::vector<TrainedTensor> buffers_;
  std::vector<at::Tensor> gradient_sums_;  // bf16 only
};

}  // namespace allometry::trainer
