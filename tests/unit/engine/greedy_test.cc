#include "worker/trainer/engine/greedy.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/unit/models/model_cases.h"
#include "worker/trainer/engine/task_answers.h"

namespace allometry::trainer {
namespace {

using Answers = std::vector<std::vector<int64_t>>;

// What greedy decoding means, at its full price: the argmax of a decoder that is given all the tokens before.
Answers TeacherForced(Model& model, const at::Tensor& inputs_bs, int64_t max_tokens) {
  at::NoGradGuard no_grad;
  Answers answers;
  for (int64_t b = 0; b < inputs_bs.size(0); ++b) {
    const at::Tensor inputs = inputs_bs.slice(0, b, b + 1), encoded = model.Encode(inputs);
    std::vector<int64_t> prefix{0};
    while (static_cast<int64_t>(prefix.size()) <= max_tokens) {
      const int64_t next = model.Decode(encoded, inputs, Ids(prefix, 1))[0][-1].argmax().item<int64_t>();
      if (next == 1) break;
      prefix.push_back(next);
    }
    answers.emplace_back(prefix.begin() + 1, prefix.end());
  }
  return answers;
}

// In float64, where rounding decides no argmax. Few token ids, so that rows end, and at different places.
TEST(DecodeGreedily, IsTheTeacherForcedArgmaxOfEveryModel) {
  arch::Shape shape = SmallShape();
  shape.vocabulary = 9;
  size_t ended = 0;
  for (const ModelCase& c : ModelCases()) {
    size_t tokens = 0;
    for (uint64_t seed = 0; seed < 4; ++seed) {
      const auto model = MakeModel(c.Spec(shape), seed);
      model->to(at::kDouble);
      model->eval();
      const at::Tensor inputs = Ids({5, 6, 7, 8, 4, 3, 2, 5, 2, 4, 6, 0, 7, 7, 2, 3, 0, 0}, 3);
      const Answers answers = DecodeGreedily(*model, inputs, 14);
      EXPECT_EQ(answers, TeacherForced(*model, inputs, 14)) << c.Name() << " seed " << seed;
      for (const auto& answer : answers) {
        ended += answer.size() < 14;
        tokens += answer.size();
      }
    }
    EXPECT_GT(tokens, 0u) << c.Name();
  }
  EXPECT_GT(ended, 0u);
}

TEST(DecodeGreedily, StopsAtItsLimit) {
  const auto model = MakeModel(ModelCases().front().Spec(SmallShape()), 1);
  model->eval();
  const at::Tensor inputs = Ids({5, 6, 7, 8}, 2);
  EXPECT_EQ(DecodeGreedily(*model, inputs, 0), Answers(2));
  for (const auto& answer : DecodeGreedily(*model, inputs, 3)) EXPECT_LE(answer.size(), 3u);
}

TEST(RoundedWidth, GivesAsManyWidthsAsAskedFor) {
  for (const int64_t most : {1, 7, 114, 512})
    for (const int64_t parts : {2, 4}) {
      std::set<int64_t> widths;
      for (int64_t used = 1; used <= most; ++used) {
        const int64_t width = RoundedWidth(used, most, parts);
        EXPECT_GE(width, used);
        EXPECT_LE(width, most);
        widths.insert(width);
      }
      EXPECT_LE(widths.size(), static_cast<size_t>(parts)) << most;
      EXPECT_EQ(*widths.rbegin(), most);
    }
  EXPECT_EQ(RoundedWidth(130, 512, 4), 256);
}

}  // namespace
}  // namespace allometry::trainer
