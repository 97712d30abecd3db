#include "worker/trainer/optim/optimizer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "common/json.h"
#include "worker/trainer/checkpoint/safetensors.h"
#include "worker/trainer/optim/adafactor.h"

namespace allometry::trainer {
namespace {

using Values = std::vector<double>;

double MeanSquare(const Values& x) {
  double sum = 0;
  for (double v : x) sum += v * v;
  return sum / static_cast<double>(x.size());
}

// Adafactor as its paper states it, in double precision and without any cleverness. A stack of matrices is factored
// matrix by matrix; clipping and parameter scaling are of the whole tensor.
class PlainAdafactor {
 public:
  PlainAdafactor(Values value, int64_t rows, int64_t columns, bool factored)
      : value_(std::move(value)),
        matrices_(static_cast<int64_t>(value_.size()) / (rows * columns)),
        rows_(rows),
        columns_(columns),
        factored_(factored),
        row_(static_cast<size_t>(matrices_ * rows)),
        column_(static_cast<size_t>(matrices_ * columns)),
        full_(value_.size()) {}

  void Step(const Values& g, double rate, double weight_decay) {
    const double b = 1.0 - std::pow(++t_, -0.8);
    Values update(g.size());
    if (factored_) {
      for (int64_t m = 0; m < matrices_; ++m) UpdateMatrix(g, m, b, update);
    } else {
      for (size_t k = 0; k < g.size(); ++k) {
        full_[k] = b * full_[k] + (1 - b) * (g[k] * g[k] + 1e-30);
        update[k] = g[k] / std::sqrt(full_[k]);
      }
    }
    const double clip = std::max(1.0, std::sqrt(MeanSquare(update)));
    const double size = rate * std::max(1e-3, std::sqrt(MeanSquare(value_)));
    for (size_t k = 0; k < g.size(); ++k) value_[k] -= size * weight_decay * value_[k] + size * update[k] / clip;
  }
  const Values& value() const { return value_; }

 private:
  void UpdateMatrix(const Values& g, int64_t m, double b, Values& update) {
    const auto at = [&](int64_t i, int64_t j) { return static_cast<size_t>((m * rows_ + i) * columns_ + j); };
    const auto square = [&](int64_t i, int64_t j) { return g[at(i, j)] * g[at(i, j)] + 1e-30; };
    double* row = row_.data() + m * rows_;
    double* column = column_.data() + m * columns_;
    double mean_row = 0;
    for (int64_t i = 0; i < rows_; ++i) {
      double mean = 0;
      for (int64_t j = 0; j < columns_; ++j) mean += square(i, j) / static_cast<double>(columns_);
      row[i] = b * row[i] + (1 - b) * mean;
      mean_row += row[i] / static_cast<double>(rows_);
    }
    for (int64_t j = 0; j < columns_; ++j) {
      double mean = 0;
      for (int64_t i = 0; i < rows_; ++i) mean += square(i, j) / static_cast<double>(rows_);
      column[j] = b * column[j] + (1 - b) * mean;
    }
    for (int64_t i = 0; i < rows_; ++i)
      for (int64_t j = 0; j < columns_; ++j) update[at(i, j)] = g[at(i, j)] / std::sqrt(row[i] * column[j] / mean_row);
  }

  Values value_;
  int64_t matrices_, rows_, columns_;
  bool factored_;
  Values row_, column_, full_;
  double t_ = 0;
};

Values ToValues(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.to(at::kDouble).contiguous().view(-1);
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

double LargestDifference(const at::Tensor& tensor, const Values& expected) {
  const Values values = ToValues(tensor);
  double largest = 0;
  for (size_t k = 0; k < values.size(); ++k) largest = std::max(largest, std::fabs(values[k] - expected[k]));
  return largest;
}

at::Tensor GradientAt(const at::Tensor& value, int64_t step) {
  at::manual_seed(static_cast<uint64_t>(1000 + step));
  // Sizes that differ from row to row and from step to step, so that clipping and factoring matter.
  at::Tensor gradient = at::randn_like(value) * (step % 3 == 0 ? 5.0 : 0.01);
  if (value.dim() >= 2) gradient = gradient * at::exp(at::randn({value.size(-2), 1}));
  return gradient.contiguous();
}

struct Shape {
  std::vector<int64_t> sides;
  bool factored;
};

class AdafactorTest : public testing::TestWithParam<bool> {};

TEST_P(AdafactorTest, AgreesWithThePaperInDoublePrecision) {
  for (const Shape& shape : {Shape{{128, 200}, true}, Shape{{127, 500}, false}, Shape{{333}, false}, Shape{{17}, false},
                             Shape{{300, 129}, true}, Shape{{1}, false}, Shape{{64, 96}, false},
                             Shape{{3, 128, 130}, true}, Shape{{4, 64, 300}, false}, Shape{{2, 2, 129, 128}, true}}) {
    for (double weight_decay : {0.0, 0.1}) {
      at::manual_seed(7);
      at::Tensor value = at::randn(shape.sides) * 0.3;
      const int64_t columns = shape.sides.back(), rows = shape.sides.size() < 2 ? 1 : value.size(-2);
      PlainAdafactor plain(ToValues(value), rows, columns, shape.factored);
      Adafactor adafactor({.weight_decay = weight_decay}, {{"x", value}});
      adafactor.UseTensorOperations(GetParam());
      for (int64_t step = 1; step <= 12; ++step) {
        const at::Tensor gradient = GradientAt(value, step);
        plain.Step(ToValues(gradient), 0.01, weight_decay);
        adafactor.Step({gradient}, 0.01);
        ASSERT_LT(LargestDifference(value, plain.value()), 1e-6)
            << shape.sides << " decay " << weight_decay << " step " << step;
      }
    }
  }
}

TEST_P(AdafactorTest, AStackOfMatricesIsFactoredOneByOne) {
  at::manual_seed(7);
  at::Tensor stack = at::randn({3, 128, 130});
  Adafactor adafactor({}, {{"x", stack}});
  adafactor.UseTensorOperations(GetParam());
  adafactor.Step({GradientAt(stack, 1)}, 0.01);
  const auto state = adafactor.State();
  EXPECT_EQ(state.at("x.row_means").sizes(), (std::vector<int64_t>{3, 128}));
  const at::Tensor expected = at::square(GradientAt(stack, 1)).mean(2);
  EXPECT_TRUE(at::allclose(state.at("x.row_means"), expected, 1e-5, 1e-9));
}

TEST_P(AdafactorTest, AZeroGradientMovesNothing) {
  at::Tensor value = at::ones({128, 128});
  Adafactor adafactor({}, {{"x", value}});
  adafactor.UseTensorOperations(GetParam());
  adafactor.Step({at::zeros({128, 128})}, 0.1);
  EXPECT_TRUE(at::equal(value, at::ones({128, 128})));
}

// Hugging Face's Adafactor factors every matrix; the golden file was made with that, see
// tests/golden/make_adafactor.py.
TEST_P(AdafactorTest, AgreesWithHuggingFace) {
  auto golden = ReadSafetensors(std::string(ALLOMETRY_SOURCE_DIR) + "/tests/golden/adafactor.safetensors");
  ASSERT_TRUE(golden) << golden.error().message;
  const int64_t steps = std::stoll(golden->metadata.at("steps"));
  for (const std::string name : {"matrix", "wide", "vector"}) {
    at::Tensor value = golden->tensors.at(name + ".initial").clone();
    Adafactor adafactor({.factored_from = 2}, {{name, value}});
    adafactor.UseTensorOperations(GetParam());
    for (int64_t step = 0; step < steps; ++step)
      adafactor.Step({golden->tensors.at(name + ".gradients")[step].contiguous()},
                     std::stod(golden->metadata.at("learning_rate")));
    const at::Tensor expected = golden->tensors.at(name + ".final");
    EXPECT_LT((value - expected).abs().max().item<double>(), 2e-6) << name;
    EXPECT_GT((value - golden->tensors.at(name + ".initial")).abs().max().item<double>(), 1e-2) << "it moved";
  }
}

// The same numbers as make_adafactor.py's `numbers`: multiples of 2^-23 in [-1, 1), exact in float32.
at::Tensor Numbers(int64_t count, uint32_t seed) {
  const at::Tensor out = at::empty({count});
  for (int64_t i = 0; i < count; ++i) {
    uint32_t h = static_cast<uint32_t>(i) * 2654435761u + seed * 40503u + 12345u;
    h = (h ^ (h >> 16)) * 0x85ebca6bu;
    h = (h ^ (h >> 13)) * 0xc2b2ae35u;
    h ^= h >> 16;
    out.mutable_data_ptr<float>()[i] = static_cast<float>(h >> 8) / 8388608.0f - 1.0f;
  }
  return out;
}

// Where both factor, or neither: every step of Hugging Face's Adafactor with relative_step=False, to a millionth. Its
// file holds every 31st value after each step; initial values and gradients are computed alike on both sides.
TEST_P(AdafactorTest, TakesEveryStepAsHuggingFacesDoes) {
  auto golden = ReadSafetensors(std::string(ALLOMETRY_SOURCE_DIR) + "/tests/golden/adafactor_steps.safetensors");
  ASSERT_TRUE(golden) << golden.error().message;
  const std::vector<std::pair<std::string, std::vector<int64_t>>> shapes{
      {"vector", {1000}}, {"square", {128, 128}}, {"wide", {130, 300}}, {"tall", {515, 129}}};
  for (const auto& [name, sides] : shapes) {
    const at::Tensor& expected = golden->tensors.at(name);  // [steps, values / 31]
    const int64_t rows = sides.size() < 2 ? 1 : sides[0], count = sides.back() * rows;
    const at::Tensor row_scales = at::exp2(at::remainder(at::arange(rows, at::kFloat), 5) - 2).unsqueeze(1);
    at::Tensor value = (Numbers(count, 0) * 0.5).view(sides);
    Adafactor adafactor({}, {{name, value}});
    adafactor.UseTensorOperations(GetParam());
    double largest = 0;
    for (int64_t step = 1; step <= expected.size(0); ++step) {
      const double scale = step % 4 == 3 ? 4.0 : 1.0 / 64;
      const at::Tensor gradient = Numbers(count, static_cast<uint32_t>(step)).view({rows, -1}) * row_scales * scale;
      adafactor.Step({gradient.view(sides)}, std::stod(golden->metadata.at("learning_rate")));
      const at::Tensor kept = value.flatten().slice(0, 0, std::nullopt, 31);
      const double difference = (kept - expected[step - 1]).abs().max().item<double>();
      EXPECT_LE(difference, 1e-6) << name << " step " << step;
      largest = std::max(largest, difference);
    }
    RecordProperty(name, std::to_string(largest * 1e9) + "e-9");
    EXPECT_GT((value.flatten() - Numbers(count, 0) * 0.5).abs().max().item<double>(), 1e-2) << name << " moved";
  }
}

INSTANTIATE_TEST_SUITE_P(LoopsAndTensors, AdafactorTest, testing::Bool());

TEST(AdamWTest, AgreesWithItsFormula) {
  at::manual_seed(3);
  at::Tensor value = at::randn({40, 30}), other = at::randn({7});
  Values x = ToValues(value), m(x.size()), v(x.size());
  auto optimizer = MakeOptimizer({.name = "adamw", .weight_decay = 0.1}, {{"a", value}, {"b", other}});
  ASSERT_TRUE(optimizer);
  for (int t = 1; t <= 10; ++t) {
    const at::Tensor gradient = GradientAt(value, t);
    const Values g = ToValues(gradient);
    for (size_t k = 0; k < x.size(); ++k) {
      m[k] = 0.9 * m[k] + 0.1 * g[k];
      v[k] = 0.999 * v[k] + 0.001 * g[k] * g[k];
      const double step = (m[k] / (1 - std::pow(0.9, t))) / (std::sqrt(v[k] / (1 - std::pow(0.999, t))) + 1e-8);
      x[k] -= 0.01 * (0.1 * x[k] + step);
    }
    (*optimizer)->Step({gradient, at::Tensor()}, 0.01);
  }
  EXPECT_LT(LargestDifference(value, x), 1e-5);
  at::manual_seed(3);
  at::randn({40, 30});
  EXPECT_TRUE(at::equal(other, at::randn({7}))) << "no gradient, no change";
}

class OptimizerStateTest : public testing::TestWithParam<std::string> {};

TEST_P(OptimizerStateTest, GoesOnBitEqualFromItsState) {
  at::manual_seed(5);
  at::Tensor straight = at::randn({130, 140}), bias = at::randn({140});
  at::Tensor resumed = straight.clone(), resumed_bias = bias.clone();
  auto first = *MakeOptimizer({.name = GetParam()}, {{"w", straight}, {"b", bias}});
  auto second = *MakeOptimizer({.name = GetParam()}, {{"w", resumed}, {"b", resumed_bias}});
  for (int64_t step = 1; step <= 4; ++step) {
    first->Step({GradientAt(straight, step), GradientAt(bias, step)}, 0.02);
    second->Step({GradientAt(straight, step), GradientAt(bias, step)}, 0.02);
  }
  auto third = *MakeOptimizer({.name = GetParam()}, {{"w", resumed}, {"b", resumed_bias}});
  ASSERT_TRUE(third->LoadState(second->State()));
  for (int64_t step = 5; step <= 9; ++step) {
    first->Step({GradientAt(straight, step), GradientAt(bias, step)}, 0.02);
    third->Step({GradientAt(straight, step), GradientAt(bias, step)}, 0.02);
  }
  EXPECT_TRUE(at::equal(straight, resumed));
  EXPECT_TRUE(at::equal(bias, resumed_bias));
}

TEST_P(OptimizerStateTest, AMissingOrMisshapenTensorIsNamed) {
  at::Tensor value = at::randn({5});
  auto optimizer = *MakeOptimizer({.name = GetParam()}, {{"w", value}});
  auto state = optimizer->State();
  const std::string name = "w.second_moment";
  state[name] = at::zeros({6});
  EXPECT_NE(optimizer->LoadState(state).error().message.find(name), std::string::npos);
  state.erase(name);
  EXPECT_NE(optimizer->LoadState(state).error().message.find(name), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Both, OptimizerStateTest, testing::Values("adafactor", "adamw"));

TEST(GradientsTest, NormAndScale) {
  const at::Tensor a = at::full({10000}, 3.0), b = at::full({3, 5}, -2.0);
  const std::vector<at::Tensor> gradients{a, at::Tensor(), b};
  EXPECT_DOUBLE_EQ(GradientNorm(gradients), std::sqrt(90000.0 + 60.0));
  ScaleGradients(gradients, 0.5);
  EXPECT_EQ(a[17].item<double>(), 1.5);
  EXPECT_EQ(b[2][4].item<double>(), -1.0);
}

TEST(MakeOptimizerTest, RefusesAnUnknownName) { EXPECT_FALSE(MakeOptimizer({.name = "sgd"}, {}).ok()); }

}  // namespace
}  // namespace allometry::trainer
