#include <functional>
#include <memory>

#include "tests/unit/kernels/kernel_case.h"

namespace allometry::trainer::kernels {
namespace {

constexpr size_t kFrom = 32;  // sides from which a tensor is factored here

struct Sides {
  int64_t matrices, rows, columns;
  int64_t count() const { return matrices * rows * columns; }
  bool factored() const { return rows >= static_cast<int64_t>(kFrom) && columns >= static_cast<int64_t>(kFrom); }
};
// Tiles that are whole, ragged, several along both sides; stacks; vectors longer than a tile; a single value.
const std::vector<Sides> kSides = {{1, 64, 256}, {1, 100, 33}, {3, 65, 259}, {1, 1, 70000},
                                   {1, 1, 1},    {1, 200, 8},  {2, 32, 32},  {1, 300, 600}};

class OptimizersTest : public KernelTest {
 protected:
  struct Model {
    DataType type;
    std::vector<Values> values, gradients;
    std::vector<std::unique_ptr<Array>> value, copy, gradient, first, second, rows, columns;
    OptimizerPlan plan;
    std::unique_ptr<Plain<OptimizerTensor>> tensors;
    std::unique_ptr<Plain<OptimizerTile>> tiles, matrices;
    std::unique_ptr<Plain<OptimizerMeans>> means;
    std::unique_ptr<Array> workspace;
    OptimizerWork work;
  };

  std::unique_ptr<Array> Zeros(int64_t n) { return std::make_unique<Array>(Upload(Values(n), DataType::kFloat32)); }

  // `skipped`: a tensor without a gradient. `parts`: each tensor is one of so many.
  Model MakeModel(DataType type, size_t skipped, int64_t parts = 1) {
    Model m{.type = type};
    std::vector<OptimizerTensor> tensors;
    std::vector<OptimizerShape> shapes;
    for (size_t i = 0; i < kSides.size(); ++i) {
      const Sides s = kSides[i];
      m.values.push_back(Random(s.count(), DataType::kFloat32, 0.3));
      m.value.push_back(std::make_unique<Array>(Upload(m.values[i], DataType::kFloat32)));
      m.copy.push_back(std::make_unique<Array>(Empty(s.count(), DataType::kBfloat16)));
      m.gradients.emplace_back();
      m.gradient.push_back(std::make_unique<Array>(Empty(s.count(), type)));
      m.first.push_back(Zeros(s.count()));
      m.second.push_back(Zeros(s.count()));
      m.rows.push_back(Zeros(s.matrices * s.rows));
      m.columns.push_back(Zeros(s.matrices * s.columns));
      tensors.push_back({.value = m.value[i]->floats(),
                         .copy = static_cast<Bf16*>(m.copy[i]->memory),
                         .gradient = i == skipped ? nullptr : m.gradient[i]->memory,
                         .first_moment = m.first[i]->floats(),
                         .second_moment = m.second[i]->floats(),
                         .row_means = m.rows[i]->floats(),
                         .column_means = m.columns[i]->floats()});
      shapes.push_back({s.matrices, s.rows, s.columns, s.factored(), parts});
    }
    m.plan = PlanOptimizer(tensors, shapes);
    m.tensors = std::make_unique<Plain<OptimizerTensor>>(&table(), m.plan.tensors);
    m.tiles = std::make_unique<Plain<OptimizerTile>>(&table(), m.plan.tiles);
    m.means = std::make_unique<Plain<OptimizerMeans>>(&table(), m.plan.means);
    m.matrices = std::make_unique<Plain<OptimizerTile>>(&table(), m.plan.matrices);
    m.workspace = std::make_unique<Array>(Empty(m.plan.workspace, DataType::kFloat32));
    m.work = WorkOf(m.plan);
    m.work.tensors = m.tensors->get();
    m.work.tiles = m.tiles->get();
    m.work.means = m.means->get();
    m.work.matrices = m.matrices->get();
    m.work.workspace = m.workspace->floats();
    return m;
  }

  void DrawGradients(Model& m) {
    for (size_t i = 0; i < kSides.size(); ++i) {
      m.gradients[i] = Random(kSides[i].count(), m.type, 0.1 + static_cast<double>(i));
      const Array drawn = Upload(m.gradients[i], m.type);
      std::vector<unsigned char> raw(drawn.Bytes());
      table().to_host(raw.data(), drawn.memory, raw.size());
      table().to_device(m.gradient[i]->memory, raw.data(), raw.size());
    }
  }

  // `between` what it measures and what it applies.
  void StepAdafactor(const Model& m, AdafactorArgs args, const std::function<void()>& between = {}) {
    args.work = m.work;
    table().adafactor_measure(nullptr, m.type, args);
    if (between) between();
    table().adafactor_apply(nullptr, m.type, args);
  }
};
ALLO_KERNEL_TEST(OptimizersTest);

constexpr size_t kNone = 1000;

TEST_P(OptimizersTest, GradientNorm) {
  for (const DataType type : kTypes) {
    Model m = MakeModel(type, 3);
    DrawGradients(m);
    double squares = 0;
    for (size_t i = 0; i < m.gradients.size(); ++i)
      if (i != 3)
        for (const double g : m.gradients[i]) squares += g * g;
    const double norm = std::sqrt(squares);
    const auto partial = UploadPlain(std::vector<double>(m.plan.tiles.size()));
    const Array out = Empty(2, DataType::kFloat32);
    for (const double limit : {0.0, norm / 3, norm * 3}) {
      table().gradient_norm(nullptr, type,
                            {.work = m.work,
                             .partial = partial.get(),
                             .norm = out.floats(),
                             .factor = out.floats() + 1,
                             .limit = static_cast<float>(limit)});
      ExpectClose(out.Read(), {norm, limit > 0 && limit < norm ? limit / norm : 1}, 1e-6, "norm and factor");
    }
  }
}

TEST_P(OptimizersTest, AdamW) {
  constexpr size_t kSkipped = 5;
  const double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8f, decay = 0.1f, rate = 0.01f, factor = 0.5;
  for (const DataType type : kTypes) {
    Model m = MakeModel(type, kSkipped);
    std::vector<Values> first(kSides.size()), second(kSides.size());
    const Array steps = Upload(Values(kSides.size()), DataType::kFloat32);
    const Array scalars = Upload({rate, factor}, DataType::kFloat32);
    for (int t = 1; t <= 3; ++t) {
      DrawGradients(m);
      table().advance_each(nullptr, m.work, steps.floats());
      table().adamw(nullptr, type,
                    {.work = m.work,
                     .steps = steps.floats(),
                     .rate = scalars.floats(),
                     .factor = scalars.floats() + 1,
                     .weight_decay = 0.1f});
      for (size_t i = 0; i < kSides.size(); ++i) {
        first[i].resize(kSides[i].count());
        second[i].resize(kSides[i].count());
        for (size_t j = 0; j < m.values[i].size() && i != kSkipped; ++j) {
          const double g = m.gradients[i][j] * factor;
          first[i][j] = beta1 * first[i][j] + (1 - beta1) * g;
          second[i][j] = beta2 * second[i][j] + (1 - beta2) * g * g;
          m.values[i][j] =
              m.values[i][j] * (1 - rate * decay) - rate * first[i][j] / (1 - std::pow(beta1, t)) /
                                                        (std::sqrt(second[i][j] / (1 - std::pow(beta2, t))) + epsilon);
        }
      }
    }
    for (size_t i = 0; i < kSides.size(); ++i) EXPECT_EQ(steps.Read()[i], i == kSkipped ? 0 : 3);
    for (size_t i = 0; i < kSides.size(); ++i) {
      ExpectClose(m.value[i]->Read(), m.values[i], 1e-5, "value of " + std::to_string(i));
      ExpectClose(m.first[i]->Read(), first[i], 1e-5, "first moment of " + std::to_string(i));
      ExpectClose(m.second[i]->Read(), second[i], 1e-5, "second moment of " + std::to_string(i));
      if (i != kSkipped) ExpectClose(m.copy[i]->Read(), m.values[i], 4.1e-3, "copy of " + std::to_string(i));
    }
  }
}

struct Moments {
  Values second, rows, columns;
};

double RootMeanSquare(const Values& x) {
  double sum = 0;
  for (const double v : x) sum += v * v;
  return std::sqrt(sum / static_cast<double>(x.size()));
}

// Algorithms 4 and 5 of the paper, as optim/adafactor.h writes them down.
void PlainAdafactor(const Sides& s, Values& x, const Values& g, Moments& m, int t, double rate, double weight_decay) {
  const double b = 1 - std::pow(t, -0.8);
  Values u(g.size());
  if (s.factored()) {
    m.rows.resize(s.matrices * s.rows);
    m.columns.resize(s.matrices * s.columns);
    for (int64_t matrix = 0; matrix < s.matrices; ++matrix) {
      const double* gm = g.data() + matrix * s.rows * s.columns;
      double *r = m.rows.data() + matrix * s.rows, *c = m.columns.data() + matrix * s.columns, mean = 0;
      for (int64_t i = 0; i < s.rows; ++i) r[i] *= b;
      for (int64_t j = 0; j < s.columns; ++j) c[j] *= b;
      for (int64_t i = 0; i < s.rows; ++i)
        for (int64_t j = 0; j < s.columns; ++j) {
          const double square = gm[i * s.columns + j] * gm[i * s.columns + j] + 1e-30;
          r[i] += (1 - b) * square / static_cast<double>(s.columns);
          c[j] += (1 - b) * square / static_cast<double>(s.rows);
        }
      for (int64_t i = 0; i < s.rows; ++i) mean += r[i] / static_cast<double>(s.rows);
      for (int64_t i = 0; i < s.rows; ++i)
        for (int64_t j = 0; j < s.columns; ++j)
          u[(matrix * s.rows + i) * s.columns + j] = gm[i * s.columns + j] / std::sqrt(r[i] * c[j] / mean);
    }
  } else {
    m.second.resize(g.size());
    for (size_t i = 0; i < g.size(); ++i) {
      m.second[i] = b * m.second[i] + (1 - b) * (g[i] * g[i] + 1e-30);
      u[i] = g[i] / std::sqrt(m.second[i]);
    }
  }
  const double size = rate * std::max(1e-3, RootMeanSquare(x)), clip = std::max(1.0, RootMeanSquare(u));
  for (size_t i = 0; i < x.size(); ++i) x[i] = x[i] * (1 - size * weight_decay) - size * u[i] / clip;
}

TEST_P(OptimizersTest, Adafactor) {
  constexpr size_t kSkipped = 0;  // a factored one
  for (const DataType type : kTypes) {
    Model m = MakeModel(type, kSkipped);
    std::vector<Moments> moments(kSides.size());
    const auto step = UploadPlain(std::vector<int64_t>{0});
    const Array scalars = Upload({0.05f, 0.5}, DataType::kFloat32);
    const double rate = 0.05f, decay = 0.1f;
    for (int t = 1; t <= 3; ++t) {
      DrawGradients(m);
      table().advance(nullptr, step.get());
      StepAdafactor(
          m, {.step = step.get(), .rate = scalars.floats(), .factor = scalars.floats() + 1, .weight_decay = 0.1f});
      for (size_t i = 0; i < kSides.size(); ++i) {
        if (i == kSkipped) continue;
        Values g = m.gradients[i];
        for (double& value : g) value *= 0.5;
        PlainAdafactor(kSides[i], m.values[i], g, moments[i], t, rate, decay);
      }
    }
    for (size_t i = 0; i < kSides.size(); ++i) {
      const std::string which = " of " + std::to_string(i);
      ExpectClose(m.value[i]->Read(), m.values[i], 1e-5, "value" + which);
      if (i == kSkipped) continue;
      ExpectClose(m.copy[i]->Read(), m.values[i], 4.1e-3, "copy" + which);
      if (kSides[i].factored()) {
        ExpectClose(m.rows[i]->Read(), moments[i].rows, 1e-5, "row means" + which);
        ExpectClose(m.columns[i]->Read(), moments[i].columns, 1e-5, "column means" + which);
      } else {
        ExpectClose(m.second[i]->Read(), moments[i].second, 1e-5, "second moment" + which);
      }
    }
  }
}

// Two parts of each tensor, whose totals are added up in between, make the step of the whole.
TEST_P(OptimizersTest, AdafactorOfParts) {
  constexpr float kRate = 0.05f;
  Model first = MakeModel(DataType::kFloat32, kNone, /*parts=*/2), second = MakeModel(DataType::kFloat32, kNone, 2);
  const auto step = UploadPlain(std::vector<int64_t>{1});
  const Array rate = Upload({kRate}, DataType::kFloat32);
  const AdafactorArgs args{.step = step.get(), .rate = rate.floats()};
  DrawGradients(first);
  DrawGradients(second);
  const auto totals = [&](const Model& m) { return m.work.workspace + m.work.totals; };
  const size_t bytes = 2 * kSides.size() * sizeof(float);
  StepAdafactor(first, args, [&] {
    StepAdafactor(second, args, [&] {
      std::vector<float> a(2 * kSides.size()), b(a);
      table().to_host(a.data(), totals(first), bytes);
      table().to_host(b.data(), totals(second), bytes);
      for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
      table().to_device(totals(first), a.data(), bytes);
      table().to_device(totals(second), a.data(), bytes);
    });
  });
  for (size_t i = 0; i < kSides.size(); ++i) {
    Sides whole = kSides[i];
    if (!whole.factored()) continue;  // a stack's other half is more matrices
    whole.matrices *= 2;
    Values x = first.values[i], g = first.gradients[i];
    x.insert(x.end(), second.values[i].begin(), second.values[i].end());
    g.insert(g.end(), second.gradients[i].begin(), second.gradients[i].end());
    Moments moments;
    PlainAdafactor(whole, x, g, moments, 1, kRate, 0);
    Values got = first.value[i]->Read();
    const Values rest = second.value[i]->Read();
    got.insert(got.end(), rest.begin(), rest.end());
    ExpectClose(got, x, 1e-5, "value of " + std::to_string(i));
  }
}

// Nothing to do is no error, and the same step twice gives the same bits.
TEST_P(OptimizersTest, EmptyAndRepeatable) {
  const auto step = UploadPlain(std::vector<int64_t>{1});
  const Array rate = Upload({0.1}, DataType::kFloat32);
  table().adafactor_measure(nullptr, DataType::kFloat32, {.step = step.get(), .rate = rate.floats()});
  table().adafactor_apply(nullptr, DataType::kFloat32, {.step = step.get(), .rate = rate.floats()});
  table().adamw(nullptr, DataType::kFloat32, {.steps = rate.floats(), .rate = rate.floats()});
  std::vector<Values> results;
  for (int run = 0; run < 2; ++run) {
    random_.seed(3);
    Model m = MakeModel(DataType::kBfloat16, kNone);
    DrawGradients(m);
    StepAdafactor(m, {.step = step.get(), .rate = rate.floats()});
    for (size_t i = 0; i < kSides.size(); ++i) {
      const Values got = m.value[i]->Read();
      if (run == 0)
        results.push_back(got);
      else
        EXPECT_EQ(got, results[i]);
    }
  }
}

}  // namespace
}  // namespace allometry::trainer::kernels
