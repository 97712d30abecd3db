#include "tests/unit/kernels/kernel_case.h"

namespace allometry::trainer::kernels {
namespace {

using SoftmaxTest = KernelTest;
ALLO_KERNEL_TEST(SoftmaxTest);

struct Shape {
  int64_t batch, heads, q, k;
  int64_t rows() const { return batch * heads * q; }
};
const Shape kShapes[] = {{1, 1, 1, 1}, {2, 3, 5, 7}, {3, 2, 4, 64}, {2, 2, 3, 114}, {1, 4, 9, 512}, {2, 1, 2, 1001}};

TEST_P(SoftmaxTest, Forward) {
  for (const DataType type : kTypes)
    for (const bool biased : {false, true})
      for (const bool masked : {false, true})
        for (const Shape s : kShapes) {
          const Values scores = Random(s.rows() * s.k, type, 3),
                       bias = Random(s.heads * s.q * s.k, DataType::kFloat32, 2);
          Values mask(s.batch * s.k), p(scores.size());
          for (double& m : mask) m = Chance(0.3) ? -1e9 : 0;
          for (int64_t b = 0; b < s.batch; ++b) mask[b * s.k] = 0;
          for (int64_t row = 0; row < s.rows(); ++row) {
            const int64_t b = row / (s.heads * s.q), in_example = row % (s.heads * s.q);
            Values e(s.k);
            double sum = 0, top = -1e300;
            for (int64_t i = 0; i < s.k; ++i) {
              e[i] =
                  scores[row * s.k + i] + (biased ? bias[in_example * s.k + i] : 0) + (masked ? mask[b * s.k + i] : 0);
              top = std::max(top, e[i]);
            }
            for (double& v : e) sum += v = std::exp(v - top);
            for (int64_t i = 0; i < s.k; ++i) p[row * s.k + i] = e[i] / sum;
          }
          const Array in = Upload(scores, type), in_bias = Upload(bias, DataType::kFloat32),
                      in_mask = Upload(mask, DataType::kFloat32);
          table().softmax_forward(nullptr, type,
                                  {.scores = in.memory,
                                   .bias = biased ? in_bias.floats() : nullptr,
                                   .mask = masked ? in_mask.floats() : nullptr,
                                   .batch = s.batch,
                                   .heads = s.heads,
                                   .q = s.q,
                                   .k = s.k});
          ExpectClose(in.Read(), p, Tolerance(type), "p");
        }
}

TEST_P(SoftmaxTest, Backward) {
  for (const DataType type : kTypes)
    for (const bool biased : {false, true})
      for (const Shape s : kShapes) {
        Values p(s.rows() * s.k);
        const Values dp = Random(p.size(), type), scores = Random(p.size(), DataType::kFloat32, 2);
        for (int64_t row = 0; row < s.rows(); ++row) {
          double sum = 0;
          for (int64_t i = 0; i < s.k; ++i) sum += std::exp(scores[row * s.k + i]);
          for (int64_t i = 0; i < s.k; ++i) p[row * s.k + i] = std::exp(scores[row * s.k + i]) / sum;
        }
        Round(p, type);
        Values ds(p.size()), dbias(s.heads * s.q * s.k);
        for (int64_t row = 0; row < s.rows(); ++row) {
          double mean = 0;
          for (int64_t i = 0; i < s.k; ++i) mean += p[row * s.k + i] * dp[row * s.k + i];
          for (int64_t i = 0; i < s.k; ++i) {
            ds[row * s.k + i] = p[row * s.k + i] * (dp[row * s.k + i] - mean);
            dbias[row % (s.heads * s.q) * s.k + i] += ds[row * s.k + i];
          }
        }
        const Array in = Upload(p, type), d = Upload(dp, type), out = Empty(dbias.size(), DataType::kFloat32);
        table().softmax_backward(nullptr, type,
                                 {.p = in.memory,
                                  .dp = d.memory,
                                  .dbias = biased ? out.floats() : nullptr,
                                  .batch = s.batch,
                                  .heads = s.heads,
                                  .q = s.q,
                                  .k = s.k});
        ExpectClose(d.Read(), ds, Tolerance(type), "ds", 0.1);
        if (biased) ExpectClose(out.Read(), dbias, 2e-5, "dbias", 0.1);
      }
}

}  // namespace
}  // namespace allometry::trainer::kernels
