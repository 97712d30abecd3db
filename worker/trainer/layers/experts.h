#pragma once

#include <functional>

#include "worker/trainer/layers/side_terms.h"
#include "worker/trainer/layers/sublayer.h"

namespace allometry::trainer {

// Experts that are divided among ranks: with e experts rank r has e / ranks of them, from r e / ranks on. All ranks run
// the same passes over as many rows.
struct ExpertRanks {
  int64_t rank = 0, ranks = 1;
  int64_t batch_rows = 0;  // of each rank in the global batch
  // Slice i of a contiguous tensor [ranks, ...] goes to rank i; slice i of the result came from there.
  std::function<at::Tensor(const at::Tensor&)> exchange;
};

// x + p_e wo_e relu(wi_e norm x), where e is the expert that the router finds most probable for the position and p_e
// its probability (Fedus et al. 2021, arXiv 2101.03961). An expert serves at most `capacity` tokens of a sequence, the
// first ones; the others' x stays as it is. Padding is served by no expert and takes no one's place.
//
// Named as Hugging Face's SwitchTransformersSparseMLP, except that one tensor holds all experts:
// "mlp.experts.wi.weight" [e, f, d] and "mlp.experts.wo.weight" [e, d, f], each one variable to the optimiser as in
// Mesh TensorFlow.
class ExpertsSublayer : public Sublayer {
 public:
  struct Sizes {
    int64_t d_model = 0, d_ff = 0, experts = 0;
    int64_t capacity = 0;  // tokens of one sequence
  };
  ExpertsSublayer(const Sizes& sizes, double dropout);
  void Initialise(at::Generator generator) override;
  // Puts the load-balancing loss and the share of dropped tokens into `context.side`, if anybody asks.
  at::Tensor forward(const at::Tensor& x_btd, const StackContext& context) override;
  // Keeps this rank's experts alone; the number of ranks divides that of experts. Tokens then travel to their expert's
  // rank and back, unless the weights hold all experts again (for evaluation).
  void Divide(const ExpertRanks& ranks);
  // Keeps the number of tokens that each expert was sent so far.
  at::Tensor Step(const at::Tensor& x_b1d, const StackContext& context, LayerCache& cache) override;

 private:
  struct Routing;
  at::Tensor Probabilities(const at::Tensor& normed_btd) const;  // [b, t, e], sum type
  // `before_be`: tokens that each expert was sent at earlier positions; undefined if there are none. Moved on.
  Routing Route(const at::Tensor& normed_btd, const StackContext& context, at::Tensor& before_be) const;
  at::Tensor RunExperts(const at::Tensor& waiting_end) const;  // [e, n, d] to [e, n, d]
  at::Tensor RunOwn(const at::Tensor& waiting_end, const RowLayout& by) const;
  at::Tensor Serve(const at::Tensor& x_btd, const StackContext& context, at::Tensor& before_be) const;
  at::Tensor ServeByKernels(const at::Tensor& x_btd, const at::Tensor& normed_btd, const Routing& to) const;

  Sizes sizes_;
  double dropout_;
  ExpertRanks ranks_;
  std::shared_ptr<torch::nn::Module> mlp_, router_, experts_;
  std::shared_ptr<Weight> classifier_, wi_, wo_;
  std::shared_ptr<RmsNorm> norm_;
};

}  // namespace allometry::trainer
