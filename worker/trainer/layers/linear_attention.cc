#include "worker/trainer/layers/linear_attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <vector>

#include "arch/performer.h"
#include "worker/trainer/layers/device_ops.h"
#include "worker/trainer/layers/ops.h"

namespace allometry::trainer {
namespace {

using kernels::FeatureSide;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double kStabiliser = 1e-6;
// A key's exponent w k - |k|^2 / 2 is at most |w|^2 / 2, about half the depth. Cut off here, sums
// over thousands of keys stay finite in float32.
constexpr double kLargestExponent = 60;
// Below any denominator that a key has a part in: such are at least 1e-6 / m, or m 1e-12.
constexpr double kNoKeys = 1e-12;

double Dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// Gram-Schmidt, twice, in plain loops: equal on every machine, which a library's factorisation is not. Rows that were
// normal get uniform directions.
void Orthonormalise(double* rows, int64_t count, int64_t depth) {
  for (int64_t i = 0; i < count; ++i) {
    double* row = rows + i * depth;
    for (int pass = 0; pass < 2; ++pass)
      for (int64_t j = 0; j < i; ++j) {
        const double along = Dot(row, rows + j * depth, depth);
        for (int64_t c = 0; c < depth; ++c) row[c] -= along * rows[j * depth + c];
      }
    const double norm = std::sqrt(Dot(row, row, depth));
    for (int64_t c = 0; c < depth; ++c) row[c] /= norm;
  }
}

// w x [n, t, m].
at::Tensor Projections(const at::Tensor& x_nte, const at::Tensor& rows_me) {
  return at::matmul(x_nte, rows_me.to(x_nte.scalar_type()).t());
}

at::Tensor HalfSquare(const at::Tensor& x_nte) { return x_nte.square().sum(-1, /*keepdim=*/true) / 2; }

at::Tensor Stabilised(const at::Tensor& f_ntm) {
  return (f_ntm + kStabiliser) / std::sqrt(static_cast<double>(f_ntm.size(2)));
}

// A column of ones, whose sums become the denominators.
at::Tensor WithOnes(const at::Tensor& v_nte) { return at::constant_pad_nd(v_nte, {0, 1}, 1); }

const kernels::KernelTable& FavorKernels(const at::Tensor& t) {
  const kernels::KernelTable* table = ops::device::KernelsOf(t);
  TORCH_CHECK(table, "linear attention by kernels has none for its backward pass");
  return *table;
}

// By a GPU's kernels; x only for a softmax's keys.
struct FeaturesFunction : torch::autograd::Function<FeaturesFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& projections, const MaybeTensor& maybe_x,
                            int64_t side) {
    const at::Tensor x = TensorOf(maybe_x);
    context->save_for_backward({projections, x});
    context->saved_data["side"] = side;
    return ops::device::Features(FavorKernels(projections), static_cast<FeatureSide>(side), projections, x);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list s = context->get_saved_variables();
    const auto side = static_cast<FeatureSide>(context->saved_data["side"].toInt());
    const auto g = ops::device::FeaturesBackward(FavorKernels(s[0]), side, s[0], s[1], gradients[0].contiguous());
    return {g.dprojections, g.dx, at::Tensor()};
  }
};

struct CarriedFunction : torch::autograd::Function<CarriedFunction> {
  static at::Tensor forward(AutogradContext*, const at::Tensor& sums_ngmc) {
    return ops::device::CarriedSums(FavorKernels(sums_ngmc), sums_ngmc, /*backward=*/false);
  }
  static variable_list backward(AutogradContext*, variable_list gradients) {
    const at::Tensor dy = gradients[0].contiguous();
    return {ops::device::CarriedSums(FavorKernels(dy), dy, /*backward=*/true)};
  }
};

struct QuotientFunction : torch::autograd::Function<QuotientFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& sums_ntc) {
    context->save_for_backward({sums_ntc});
    return ops::device::Quotient(FavorKernels(sums_ntc), sums_ntc);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const at::Tensor sums = context->get_saved_variables()[0];
    return {ops::device::QuotientBackward(FavorKernels(sums), sums, gradients[0].contiguous())};
  }
};

at::Tensor FeaturesByKernels(FeatureSide side, const at::Tensor& wx, const at::Tensor& x) {
  return FeaturesFunction::apply(wx.contiguous(), Maybe(x), static_cast<int64_t>(side));
}

// Numerators and denominator [n, t, e + 1] to quotients [n, t, e].
at::Tensor Quotient(const at::Tensor& sums_ntc) {
  if (ops::device::KernelsOf(sums_ntc)) return QuotientFunction::apply(sums_ntc.contiguous());
  const int64_t depth = sums_ntc.size(2) - 1;
  return sums_ntc.slice(2, 0, depth) / sums_ntc.slice(2, depth).clamp_min(kNoKeys);
}

// [n, t, c] to [n, chunks, size, c], zeros behind the end.
at::Tensor Chunked(const at::Tensor& x_ntc, const arch::PerformerChunks& chunks) {
  const at::Tensor padded = at::constant_pad_nd(x_ntc, {0, 0, 0, chunks.padded_length() - x_ntc.size(1)}, 0);
  return padded.view({x_ntc.size(0), chunks.count, chunks.size, x_ntc.size(2)});
}

// A product for each chunk.
at::Tensor ChunkProduct(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor y = at::bmm(a.flatten(0, 1), b.flatten(0, 1));
  return y.view({a.size(0), a.size(1), y.size(1), y.size(2)});
}

// q times the sums over all earlier chunks, for every chunk: 0 for the first, but nothing is cut off or copied.
at::Tensor EarlierByKernels(const at::Tensor& q_ngsm, const at::Tensor& k_ngsm, const at::Tensor& v_ngsc) {
  return ChunkProduct(q_ngsm, CarriedFunction::apply(ChunkProduct(k_ngsm.transpose(2, 3), v_ngsc)));
}

// The sums over all chunks before the second, third, ... one.
at::Tensor CarriedSums(const at::Tensor& k_ngsm, const at::Tensor& v_ngsc) {
  const int64_t before_last = k_ngsm.size(1) - 1;
  const at::Tensor sums =
      ChunkProduct(k_ngsm.slice(1, 0, before_last).transpose(2, 3), v_ngsc.slice(1, 0, before_last));
  std::vector<at::Tensor> carried{sums.select(1, 0)};
  for (int64_t chunk = 1; chunk < before_last; ++chunk) carried.push_back(carried.back() + sums.select(1, chunk));
  return at::stack(carried, 1);
}

}  // namespace

at::Tensor DrawRandomFeatures(int64_t count, int64_t depth, at::Generator generator) {
  at::NoGradGuard no_grad;
  const int64_t blocks = (count + depth - 1) / depth;
  const at::Tensor directions = at::empty({blocks * depth, depth}, at::kDouble).normal_(0, 1, generator);
  for (int64_t block = 0; block < blocks; ++block)
    Orthonormalise(directions.mutable_data_ptr<double>() + block * depth * depth, depth, depth);
  const at::Tensor norms = at::empty({count, depth}, at::kDouble).normal_(0, 1, generator).norm(2, 1, /*keepdim=*/true);
  return (directions.slice(0, 0, count) * norms).to(at::kFloat);
}

RandomFeatures::RandomFeatures(int64_t count, int64_t depth) {
  rows_me_ = register_buffer("rows", at::zeros({count, depth}));
}

void RandomFeatures::Draw(at::Generator generator) {
  if (rows_me_.is_meta()) return;  // a model of shapes alone, without values
  at::NoGradGuard no_grad;
  rows_me_.copy_(DrawRandomFeatures(rows_me_.size(0), rows_me_.size(1), generator));
}

at::Tensor QueryFeatures(FeatureKernel kernel, const at::Tensor& q_nte, const at::Tensor& rows_me) {
  const at::Tensor wx = Projections(q_nte, rows_me);
  if (ops::device::KernelsOf(wx))
    return FeaturesByKernels(kernel == FeatureKernel::kRelu ? FeatureSide::kRelu : FeatureSide::kQuery, wx, {});
  if (kernel == FeatureKernel::kRelu) return Stabilised(at::relu(wx));
  return Stabilised((wx - wx.amax(-1, /*keepdim=*/true)).exp());  // |q|^2 / 2 cancels too
}

at::Tensor KeyFeatures(FeatureKernel kernel, const at::Tensor& k_nte, const at::Tensor& rows_me) {
  const at::Tensor wx = Projections(k_nte, rows_me);
  if (ops::device::KernelsOf(wx))
    return kernel == FeatureKernel::kRelu ? FeaturesByKernels(FeatureSide::kRelu, wx, {})
                                          : FeaturesByKernels(FeatureSide::kKey, wx, k_nte.contiguous());
  if (kernel == FeatureKernel::kRelu) return Stabilised(at::relu(wx));
  return Stabilised((wx - HalfSquare(k_nte)).clamp_max(kLargestExponent).exp());
}

at::Tensor LinearAttention(const at::Tensor& q_ntm, const at::Tensor& k_ntm, const at::Tensor& v_nte) {
  return Quotient(at::bmm(q_ntm, at::bmm(k_ntm.transpose(1, 2), WithOnes(v_nte))));
}

at::Tensor CausalLinearAttention(const at::Tensor& q_ntm, const at::Tensor& k_ntm, const at::Tensor& v_nte) {
  const int64_t length = q_ntm.size(1);
  const arch::PerformerChunks chunks = arch::PerformerChunksOf(length);
  const at::Tensor q = Chunked(q_ntm, chunks), k = Chunked(k_ntm, chunks), v = Chunked(WithOnes(v_nte), chunks);
  at::Tensor sums_ngsc = ChunkProduct(ChunkProduct(q, k.transpose(2, 3)).tril(), v);
  if (chunks.count > 1 && ops::device::KernelsOf(sums_ngsc)) {
    sums_ngsc = sums_ngsc + EarlierByKernels(q, k, v);
  } else if (chunks.count > 1) {
    const at::Tensor earlier = ChunkProduct(q.slice(1, 1), CarriedSums(k, v));
    sums_ngsc = sums_ngsc + at::constant_pad_nd(earlier, {0, 0, 0, 0, 1, 0}, 0);
  }
  return Quotient(sums_ngsc.flatten(1, 2).slice(1, 0, length));
}

LinearAttentionSublayer::LinearAttentionSublayer(const arch::Shape& shape, std::shared_ptr<RandomFeatures> features,
                                                 const Options& options)
    : options_(options), heads_(shape.heads), d_kv_(shape.d_kv), features_(std::move(features)) {
  attention_ = register_module("SelfAttention", std::make_shared<Attention>(shape, /*with_table=*/false));
  if (options.owns_features) register_module("random_features", features_);
  norm_ = register_module("layer_norm", std::make_shared<RmsNorm>(shape.d_model));
}

void LinearAttentionSublayer::Initialise(at::Generator generator) {
  attention_->Initialise(generator);
  if (options_.owns_features) features_->Draw(generator);
}

LinearAttentionSublayer::Projected LinearAttentionSublayer::Project(const at::Tensor& x_btd) {
  const at::Tensor normed = norm_->forward(x_btd);
  const int64_t batch = x_btd.size(0), length = x_btd.size(1);
  const auto heads = [&](const at::Tensor& weight) {
    const at::Tensor y = at::linear(normed, weight).to(ops::SumType(x_btd.scalar_type()));
    return y.view({batch, length, heads_, d_kv_}).transpose(1, 2).reshape({batch * heads_, length, d_kv_});
  };
  // q k is unchanged, and the estimate's variance, exp(|q + k|^2) - 1 for each feature, is least where queries and keys
  // are of one size: at the start |q| is about 1 and |k| the root of d_kv.
  const double balance = std::pow(static_cast<double>(d_kv_), 0.25);
  return {QueryFeatures(options_.kernel, heads(attention_->q()) * balance, features_->rows()),
          KeyFeatures(options_.kernel, heads(attention_->k()) / balance, features_->rows()), heads(attention_->v())};
}

at::Tensor LinearAttentionSublayer::Output(const at::Tensor& x_btd, const at::Tensor& mixed_nte) {
  const int64_t batch = x_btd.size(0), length = x_btd.size(1);
  const at::Tensor rows =
      mixed_nte.view({batch, heads_, length, d_kv_}).transpose(1, 2).reshape({batch, length, heads_ * d_kv_});
  const at::Tensor out = at::linear(rows.to(x_btd.scalar_type()), attention_->o());
  return x_btd + Drop(out, options_.dropout, is_training());
}

at::Tensor LinearAttentionSublayer::forward(const at::Tensor& x_btd, const StackContext& context) {
  Projected p = Project(x_btd);
  if (options_.causal) return Output(x_btd, CausalLinearAttention(p.q_ntm, p.k_ntm, p.v_nte));
  if (context.keep_bs1.defined())  // [b, s, 1] for each head
    p.k_ntm = p.k_ntm * context.keep_bs1.to(p.k_ntm.scalar_type()).repeat_interleave(heads_, 0);
  return Output(x_btd, LinearAttention(p.q_ntm, p.k_ntm, p.v_nte));
}

at::Tensor LinearAttentionSublayer::Step(const at::Tensor& x_b1d, const StackContext&, LayerCache& cache) {
  TORCH_CHECK(options_.causal, "only causal attention goes step by step");
  const Projected p = Project(x_b1d);
  const at::Tensor now = at::bmm(p.k_ntm.transpose(1, 2), WithOnes(p.v_nte));
  std::vector<at::Tensor>& kept = cache.tensors;
  kept = {kept.empty() ? now : kept[0] + now};
  return Output(x_b1d, Quotient(at::bmm(p.q_ntm, kept[0])));
}

}  // namespace allometry::trainer
