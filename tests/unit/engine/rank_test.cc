#include "worker/trainer/engine/rank.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/unit/models/model_cases.h"

namespace allometry::trainer {
namespace {

// What a likelihood means, by the model's own loss: each candidate alone with its input.
double MinusNll(Model& model, const at::Tensor& inputs_bs, const Candidate& candidate) {
  at::NoGradGuard no_grad;
  const std::vector<int64_t> tokens(candidate.tokens.begin(), candidate.tokens.end());
  return -model.TokenNll({inputs_bs.slice(0, candidate.row, candidate.row + 1), Ids(tokens, 1)}).sum().item<double>();
}

TEST(LogLikelihoods, AreThoseOfEachCandidateAlone) {
  const at::Tensor inputs = Ids({5, 6, 7, 8, 4, 3, 2, 5, 2, 4, 6, 0, 7, 7, 2, 3, 0, 0}, 3);
  // More than go through a model at once, of different lengths, rows in no order.
  std::vector<Candidate> candidates;
  for (int i = 0; i < 70; ++i) {
    std::vector<int32_t> tokens;
    for (int t = 0; t <= i % 4; ++t) tokens.push_back(2 + (i + t) % 7);
    tokens.push_back(1);
    candidates.push_back({(i * 2) % 3, tokens});
  }
  for (const ModelCase& c : ModelCases()) {
    const auto model = MakeModel(c.Spec(SmallShape()), 3);
    model->to(at::kDouble);
    model->eval();
    const std::vector<double> likelihoods = LogLikelihoods(*model, inputs, candidates);
    ASSERT_EQ(likelihoods.size(), candidates.size());
    for (size_t i = 0; i < candidates.size(); i += 3)
      EXPECT_NEAR(likelihoods[i], MinusNll(*model, inputs, candidates[i]), 1e-5) << c.Name() << " candidate " << i;
  }
}

}  // namespace
}  // namespace allometry::trainer
