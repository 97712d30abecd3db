#pragma once

#include "worker/trainer/layers/attention.h"
#include "worker/trainer/layers/sublayer.h"

namespace allometry::trainer {

// Attention that is linear in the length (FAVOR+, Choromanski et al. 2020, arXiv 2009.14794). Shape legend: n sequences
// of one head (b h), m random features, e depth of a head. Everything here is of the sum type: float32, or float64 for
// float64.

// Rows w of `count` random features: those of each block of `depth` rows are orthogonal, their directions uniform,
// their norms those of normal vectors, so that each row is a normal vector. A pure function of the generator's state.
at::Tensor DrawRandomFeatures(int64_t count, int64_t depth, at::Generator generator);

// The draw of one stack: a buffer, saved with the weights and not trained.
class RandomFeatures : public torch::nn::Module {
 public:
  RandomFeatures(int64_t count, int64_t depth);
  void Draw(at::Generator generator);
  const at::Tensor& rows() const { return rows_me_; }

 private:
  at::Tensor rows_me_;
};

enum class FeatureKernel { kSoftmax, kRelu };

// Positive features m^-1/2 (f(x) + 1e-6) of vectors [n, t, e]. Softmax: f = exp(w x - |x|^2 / 2), whose products
// average to exp(q k); a query's are divided by its largest, which cancels in the quotient. Relu: f = max(w x, 0). A
// vector's features depend on that vector alone: there is no maximum over positions, since each f averages to 1 by
// itself.
at::Tensor QueryFeatures(FeatureKernel kernel, const at::Tensor& q_nte, const at::Tensor& rows_me);
at::Tensor KeyFeatures(FeatureKernel kernel, const at::Tensor& k_nte, const at::Tensor& rows_me);

// sum_j (q_i k_j) v_j / sum_j (q_i k_j) of features q, k [n, t, m] and values [n, t, e]; over all j, or j <= i. Without
// any key, 0. The causal sums go chunk by chunk (arch::PerformerChunksOf) and keep, per sequence, chunks - 1 states of
// m (e + 1) values and t times the chunk's size of products.
at::Tensor LinearAttention(const at::Tensor& q_ntm, const at::Tensor& k_ntm, const at::Tensor& v_nte);
at::Tensor CausalLinearAttention(const at::Tensor& q_ntm, const at::Tensor& k_ntm, const at::Tensor& v_nte);

// x + linear self-attention(norm x). There are no probabilities to drop out; the output is.
class LinearAttentionSublayer : public Sublayer {
 public:
  struct Options {
    FeatureKernel kernel = FeatureKernel::kSoftmax;
    bool causal = false;
    bool owns_features = false;  // the stack's first layer draws and saves them
    double dropout = 0;
  };
  LinearAttentionSublayer(const arch::Shape& shape, std::shared_ptr<RandomFeatures> features, const Options& options);
  void Initialise(at::Generator generator) override;
  at::Tensor forward(const at::Tensor& x_btd, const StackContext& context) override;
  // Keeps the sums over all keys so far, [b h, m, e + 1]: as large after the first position as after the last.
  at::Tensor Step(const at::Tensor& x_b1d, const StackContext& context, LayerCache& cache) override;

 private:
  struct Projected {
    at::Tensor q_ntm, k_ntm, v_nte;
  };
  Projected Project(const at::Tensor& x_btd);
  at::Tensor Output(const at::Tensor& x_btd, const at::Tensor& mixed_nte);

  Options options_;
  int64_t heads_, d_kv_;
  std::shared_ptr<RandomFeatures> features_;
  std::shared_ptr<Attention> attention_;
  std::shared_ptr<RmsNorm> norm_;
};

}  // namespace allometry::trainer
