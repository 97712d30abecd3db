#include "tests/unit/kernels/attention_reference.h"

#include <gtest/gtest.h>

#include <random>

namespace allometry::trainer::kernels {
namespace {

std::vector<double> Normal(int64_t count, std::mt19937& random) {
  std::normal_distribution<double> normal;
  std::vector<double> values(static_cast<size_t>(count));
  for (double& x : values) x = normal(random);
  return values;
}

ReferenceAttention Small(bool causal, bool with_table, std::mt19937& random) {
  ReferenceAttention a{.batch = 2, .heads = 2, .queries = 11, .keys = causal ? 11 : 7, .depth = 8, .causal = causal};
  a.q = Normal(a.batch * a.heads * a.queries * a.depth, random);
  a.k = Normal(a.batch * a.heads * a.keys * a.depth, random);
  a.v = Normal(a.batch * a.heads * a.keys * a.depth, random);
  if (with_table) a.table = Normal(32 * a.heads, random);
  a.mask.resize(static_cast<size_t>(a.batch * a.keys));
  for (size_t i = 0; i < a.mask.size(); ++i) a.mask[i] = i % 5 == 3 ? -3e38 : 0;
  return a;
}

// Slope of out . dout along a direction of one of the inputs, by central differences.
double Slope(ReferenceAttention a, std::vector<double> ReferenceAttention::*of, const std::vector<double>& direction,
             const std::vector<double>& dout) {
  const double step = 1e-5;
  double value[2];
  const std::vector<double> from = a.*of;
  for (int side = 0; side < 2; ++side) {
    for (size_t i = 0; i < from.size(); ++i) (a.*of)[i] = from[i] + (side ? step : -step) * direction[i];
    const ReferenceResult result = Forward(a);
    value[side] = 0;
    for (size_t i = 0; i < dout.size(); ++i) value[side] += result.out[i] * dout[i];
  }
  return (value[1] - value[0]) / (2 * step);
}

double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

void CheckSlopes(const ReferenceAttention& a, std::mt19937& random) {
  const std::vector<double> dout = Normal(static_cast<int64_t>(a.q.size()), random);
  const ReferenceGradients g = Backward(a, dout);
  const auto check = [&](std::vector<double> ReferenceAttention::*of, const std::vector<double>& gradient) {
    const std::vector<double> direction = Normal(static_cast<int64_t>(gradient.size()), random);
    EXPECT_NEAR(Slope(a, of, direction, dout), Dot(gradient, direction), 1e-6);
  };
  check(&ReferenceAttention::q, g.dq);
  check(&ReferenceAttention::k, g.dk);
  check(&ReferenceAttention::v, g.dv);
  check(&ReferenceAttention::table, g.dtable);
}

TEST(AttentionReference, GradientsAreTheSlopes) {
  std::mt19937 random(1);
  for (const bool causal : {false, true})
    for (const bool with_table : {false, true}) CheckSlopes(Small(causal, with_table, random), random);
}

TEST(AttentionReference, GradientsAreTheSlopesUnderDropout) {
  std::mt19937 random(2);
  ReferenceAttention a = Small(/*causal=*/true, /*with_table=*/true, random);
  a.kept = [](const void*, int64_t batch, int64_t head, int64_t query, int64_t key) {
    return (batch + 3 * head + 5 * query + 7 * key) % 4 == 0 ? 0 : 4.0 / 3.0;
  };
  CheckSlopes(a, random);
}

TEST(AttentionReference, ARowThatSeesNothingIsTheMean) {
  std::mt19937 random(3);
  ReferenceAttention a = Small(/*causal=*/false, /*with_table=*/true, random);
  std::fill(a.mask.begin(), a.mask.end(), -3e38);
  const ReferenceResult result = Forward(a);
  double mean = 0;
  for (int64_t key = 0; key < a.keys; ++key) mean += a.v[static_cast<size_t>(key * a.depth)] / a.keys;
  EXPECT_NEAR(result.out[0], mean, 1e-12);
}

}  // namespace
}  // namespace allometry::trainer::kernels
