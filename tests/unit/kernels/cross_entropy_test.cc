#include "tests/unit/kernels/kernel_case.h"

namespace allometry::trainer::kernels {
namespace {

using CrossEntropyTest = KernelTest;
ALLO_KERNEL_TEST(CrossEntropyTest);

struct Shape {
  int64_t n, k, v;
};

double LogZ(const double* logits, int64_t v) {
  const double largest = *std::max_element(logits, logits + v);
  double sum = 0;
  for (int64_t i = 0; i < v; ++i) sum += std::exp(logits[i] - largest);
  return largest + std::log(sum);
}

struct Reference {
  Values nll, z_loss, dlogits, dlog_prior;
};

// Of tokens with k softmaxes each; one softmax with log prior 0 is the plain likelihood.
Reference Expected(Shape s, const Values& logits, const Values& log_prior, const std::vector<int64_t>& targets,
                   double z) {
  Reference out{Values(s.n), Values(s.n), Values(logits.size()), Values(log_prior.size())};
  for (int64_t at = 0; at < s.n; ++at) {
    if (targets[at] == 0) continue;
    Values log_z(s.k), joint(s.k);
    double sum = 0;
    for (int64_t k = 0; k < s.k; ++k) {
      const double* row = logits.data() + (at * s.k + k) * s.v;
      log_z[k] = LogZ(row, s.v);
      joint[k] = log_prior[at * s.k + k] + row[targets[at]] - log_z[k];
      sum += std::exp(joint[k]);
    }
    out.nll[at] = -std::log(sum);
    for (int64_t k = 0; k < s.k; ++k) {
      const double share = std::exp(joint[k]) / sum, prior = std::exp(log_prior[at * s.k + k]);
      out.z_loss[at] += z * prior * log_z[k] * log_z[k];
      out.dlog_prior[at * s.k + k] = -share + z * prior * log_z[k] * log_z[k];
      for (int64_t i = 0; i < s.v; ++i) {
        const int64_t place = (at * s.k + k) * s.v + i;
        const double p = std::exp(logits[place] - log_z[k]);
        out.dlogits[place] = share * (p - (i == targets[at])) + 2 * z * prior * log_z[k] * p;
      }
    }
  }
  return out;
}

// Rows whose packs fill the registers, leave some of them empty, or go beyond them.
const Shape kShapes[] = {{3, 1, 1}, {5, 1, 7}, {4, 1, 1000}, {3, 1, 4097}, {2, 1, 17000}, {1, 1, 32128}, {1, 1, 40000}};

TEST_P(CrossEntropyTest, LossAndGradient) {
  for (const DataType type : kTypes)
    for (const double z : {0.0, 1e-2})
      for (const Shape s : kShapes) {
        const Values logits = Random(s.n * s.v, type, 4);
        std::vector<int64_t> targets(s.n);
        for (auto& target : targets) target = Index(s.v);
        if (s.n > 1) targets[1] = 0;
        const Reference want = Expected(s, logits, Values(s.n), targets, z);
        const auto on_device = UploadPlain(targets);
        const Array in = Upload(logits, type), nll = Empty(s.n, DataType::kFloat32),
                    z_loss = Empty(s.n, DataType::kFloat32);
        CrossEntropyArgs args{.logits = in.memory,
                              .targets = on_device.get(),
                              .nll = nll.floats(),
                              .n = s.n,
                              .v = s.v,
                              .z = static_cast<float>(z)};
        table().cross_entropy(nullptr, type, args);
        EXPECT_EQ(in.Read(), logits);
        ExpectClose(nll.Read(), want.nll, 2e-5, "nll without gradient", 1);
        args.gradient = true;
        args.z_loss = z_loss.floats();
        table().cross_entropy(nullptr, type, args);
        ExpectClose(nll.Read(), want.nll, 2e-5, "nll", 1);
        ExpectClose(z_loss.Read(), want.z_loss, 2e-5, "z-loss");
        ExpectClose(in.Read(), want.dlogits, Tolerance(type), "dlogits");
      }
}

TEST_P(CrossEntropyTest, BadTargetsAreNan) {
  const auto targets = UploadPlain(std::vector<int64_t>{-1, 9, 2});
  const Array logits = Upload(Random(27, DataType::kFloat32), DataType::kFloat32), nll = Empty(3, DataType::kFloat32);
  table().cross_entropy(nullptr, DataType::kFloat32,
                        {.logits = logits.memory, .targets = targets.get(), .nll = nll.floats(), .n = 3, .v = 9});
  const Values got = nll.Read();
  EXPECT_TRUE(std::isnan(got[0]) && std::isnan(got[1]));
  EXPECT_TRUE(std::isfinite(got[2]));
}

// Logits far apart and masked ones: nothing overflows and -inf has no probability.
TEST_P(CrossEntropyTest, ExtremeLogits) {
  Values logits(2000, -std::numeric_limits<double>::infinity());
  logits[3] = 3e4;
  logits[1900] = 3e4;
  const auto targets = UploadPlain(std::vector<int64_t>{3});
  const Array in = Upload(logits, DataType::kFloat32), nll = Empty(1, DataType::kFloat32);
  table().cross_entropy(
      nullptr, DataType::kFloat32,
      {.logits = in.memory, .targets = targets.get(), .nll = nll.floats(), .n = 1, .v = 2000, .gradient = true});
  EXPECT_NEAR(nll.Read()[0], std::log(2.0), 2e-3);  // a unit of float32 at 30000
  Values want(2000);
  want[3] = -0.5;
  want[1900] = 0.5;
  ExpectClose(in.Read(), want, 2e-3, "dlogits");
}

TEST_P(CrossEntropyTest, Mixture) {
  for (const DataType type : kTypes)
    for (const double z : {0.0, 1e-2})
      for (const Shape s : {Shape{3, 1, 9}, Shape{4, 2, 100}, Shape{3, 5, 515}, Shape{2, 3, 4608}}) {
        const Values logits = Random(s.n * s.k * s.v, type, 3);
        Values log_prior = Random(s.n * s.k, DataType::kFloat32);
        for (int64_t at = 0; at < s.n; ++at) {
          const double norm = LogZ(log_prior.data() + at * s.k, s.k);
          for (int64_t k = 0; k < s.k; ++k) log_prior[at * s.k + k] -= norm;
        }
        Round(log_prior, DataType::kFloat32);
        std::vector<int64_t> targets(s.n);
        for (auto& target : targets) target = Index(s.v);
        targets[1] = 0;
        const Reference want = Expected(s, logits, log_prior, targets, z);
        const auto on_device = UploadPlain(targets);
        const Array in = Upload(logits, type), prior = Upload(log_prior, DataType::kFloat32),
                    nll = Empty(s.n, DataType::kFloat32), z_loss = Empty(s.n, DataType::kFloat32),
                    dprior = Empty(s.n * s.k, DataType::kFloat32);
        MixtureArgs args{.logits = in.memory,
                         .log_prior = prior.floats(),
                         .targets = on_device.get(),
                         .nll = nll.floats(),
                         .n = s.n,
                         .k = s.k,
                         .v = s.v,
                         .z = static_cast<float>(z)};
        table().mixture(nullptr, type, args);
        EXPECT_EQ(in.Read(), logits);
        ExpectClose(nll.Read(), want.nll, 2e-5, "nll without gradient", 1);
        args.gradient = true;
        args.z_loss = z_loss.floats();
        args.dlog_prior = dprior.floats();
        table().mixture(nullptr, type, args);
        ExpectClose(nll.Read(), want.nll, 2e-5, "nll", 1);
        ExpectClose(z_loss.Read(), want.z_loss, 2e-5, "z-loss");
        ExpectClose(dprior.Read(), want.dlog_prior, 2e-5, "dlog_prior", 1);
        ExpectClose(in.Read(), want.dlogits, Tolerance(type), "dlogits");
      }
}

}  // namespace
}  // namespace allometry::trainer::kernels
