#include "tests/unit/kernels/attention_reference.h"

#include <algorithm>
#include <cmath>

#include "worker/trainer/kernels/relative_buckets.h"

namespace allometry::trainer::kernels {
namespace {

double Dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}
void AddScaled(double* to, double by, const double* of, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += by * of[i];
}

// One query of one head of one example.
struct Row {
  const ReferenceAttention& a;
  int64_t batch, head, query;

  int64_t seen() const { return a.causal ? std::min(a.keys, query + 1) : a.keys; }
  int64_t Of(int64_t row, int64_t rows) const { return ((batch * a.heads + head) * rows + row) * a.depth; }
  int64_t TableAt(int64_t key) const { return RelativeBucket(key - query, !a.causal) * a.heads + head; }
  double Kept(int64_t key) const { return a.kept ? a.kept(a.kept_context, batch, head, query, key) : 1; }

  // Probabilities of the keys that are seen; `lse` is the logarithm of their sum before division.
  std::vector<double> Probabilities(double* lse) const {
    std::vector<double> p(static_cast<size_t>(seen()));
    double max = -INFINITY, sum = 0;
    for (int64_t key = 0; key < seen(); ++key) {
      double& s = p[static_cast<size_t>(key)];
      s = Dot(&a.q[static_cast<size_t>(Of(query, a.queries))], &a.k[static_cast<size_t>(Of(key, a.keys))], a.depth);
      if (!a.table.empty()) s += a.table[static_cast<size_t>(TableAt(key))];
      if (!a.mask.empty()) s += a.mask[static_cast<size_t>(batch * a.keys + key)];
      max = std::max(max, s);
    }
    for (double& s : p) sum += s = std::exp(s - max);
    for (double& s : p) s /= sum;
    *lse = max + std::log(sum);
    return p;
  }
};

template <typename Function>
void ForRows(const ReferenceAttention& a, const Function& function) {
  for (int64_t batch = 0; batch < a.batch; ++batch)
    for (int64_t head = 0; head < a.heads; ++head)
      for (int64_t query = 0; query < a.queries; ++query) function(Row{a, batch, head, query});
}

}  // namespace

ReferenceResult Forward(const ReferenceAttention& a) {
  ReferenceResult result{std::vector<double>(a.q.size()), {}};
  ForRows(a, [&](const Row& row) {
    double lse = 0;
    const std::vector<double> p = row.Probabilities(&lse);
    result.lse.push_back(lse);
    for (int64_t key = 0; key < row.seen(); ++key)
      AddScaled(&result.out[static_cast<size_t>(row.Of(row.query, a.queries))],
                p[static_cast<size_t>(key)] * row.Kept(key), &a.v[static_cast<size_t>(row.Of(key, a.keys))], a.depth);
  });
  return result;
}

ReferenceGradients Backward(const ReferenceAttention& a, const std::vector<double>& dout) {
  ReferenceGradients g{std::vector<double>(a.q.size()), std::vector<double>(a.k.size()),
                       std::vector<double>(a.v.size()), std::vector<double>(a.table.size())};
  ForRows(a, [&](const Row& row) {
    double lse = 0;
    const std::vector<double> p = row.Probabilities(&lse);
    const auto query = static_cast<size_t>(row.Of(row.query, a.queries));
    std::vector<double> dp(p.size());
    double mean = 0;
    for (size_t key = 0; key < p.size(); ++key) {
      const auto at = static_cast<size_t>(row.Of(static_cast<int64_t>(key), a.keys));
      const double kept = row.Kept(static_cast<int64_t>(key));
      dp[key] = kept * Dot(&dout[query], &a.v[at], a.depth);
      mean += p[key] * dp[key];
      AddScaled(&g.dv[at], p[key] * kept, &dout[query], a.depth);
    }
    for (size_t key = 0; key < p.size(); ++key) {
      const auto at = static_cast<size_t>(row.Of(static_cast<int64_t>(key), a.keys));
      const double ds = p[key] * (dp[key] - mean);
      AddScaled(&g.dq[query], ds, &a.k[at], a.depth);
      AddScaled(&g.dk[at], ds, &a.q[query], a.depth);
      if (!a.table.empty()) g.dtable[static_cast<size_t>(row.TableAt(static_cast<int64_t>(key)))] += ds;
    }
  });
  return g;
}

}  // namespace allometry::trainer::kernels
