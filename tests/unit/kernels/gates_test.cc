#include "tests/unit/kernels/kernel_case.h"

namespace allometry::trainer::kernels {
namespace {

using GatesTest = KernelTest;
ALLO_KERNEL_TEST(GatesTest);

struct Shape {
  int64_t rows, columns;
};
const Shape kShapes[] = {{1, 1}, {3, 7}, {5, 8}, {4, 100}, {33, 64}, {2, 1031}};

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

double Act(Activation act, double u) {
  switch (act) {
    case Activation::kSigmoid:
      return Sigmoid(u);
    case Activation::kSilu:
      return u * Sigmoid(u);
    case Activation::kGelu:
      return u / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (u + 0.044715 * u * u * u)));
    default:
      return std::max(u, 0.0);
  }
}
// By differences: independent of the formula that the kernel uses.
double Slope(Activation act, double u) { return (Act(act, u + 1e-5) - Act(act, u - 1e-5)) / 2e-5; }

constexpr Activation kActivations[] = {Activation::kSigmoid, Activation::kGelu, Activation::kSilu, Activation::kRelu};

// The halves of one [rows, 2 columns], or two arrays: how u and v may lie.
struct Pair {
  Values both;
  int64_t stride, second;  // where v begins
  size_t U(int64_t row, int64_t c) const { return static_cast<size_t>(row * stride + c); }
  size_t V(int64_t row, int64_t c) const { return static_cast<size_t>(second + row * stride + c); }
};
Pair Layout(Values both, Shape s, bool halves) {
  return {std::move(both), halves ? 2 * s.columns : s.columns, halves ? s.columns : s.rows * s.columns};
}
void* Behind(const Array& array, int64_t values) {
  return static_cast<char*>(array.memory) + values * (array.type == DataType::kBfloat16 ? 2 : 4);
}

TEST_P(GatesTest, GateForwardAndBackward) {
  for (const DataType type : kTypes)
    for (const Activation act : kActivations)
      for (const bool halves : {false, true})
        for (const bool masked : {false, true})
          for (const Shape s : kShapes) {
            const Pair in = Layout(Random(2 * s.rows * s.columns, type), s, halves);
            const Values dout = Random(s.rows * s.columns, type);
            Values mask(dout.size(), 1.0), out(dout.size()), gradient(in.both.size());
            if (masked)
              for (double& m : mask) m = Chance(0.3) ? 0 : 1.25;
            for (int64_t r = 0; r < s.rows; ++r)
              for (int64_t c = 0; c < s.columns; ++c) {
                const double u = in.both[in.U(r, c)], v = in.both[in.V(r, c)];
                const size_t at = static_cast<size_t>(r * s.columns + c);
                out[at] = Act(act, u) * v * mask[at];
                gradient[in.U(r, c)] = dout[at] * mask[at] * v * Slope(act, u);
                gradient[in.V(r, c)] = dout[at] * mask[at] * Act(act, u);
              }
            const Array on = Upload(in.both, type), masks = Upload(mask, type), y = Empty(out.size(), type),
                        dy = Upload(dout, type), d = Empty(in.both.size(), type);
            table().gate_forward(nullptr, type,
                                 {.activation = act,
                                  .u = on.memory,
                                  .v = Behind(on, in.second),
                                  .mask = masked ? masks.memory : nullptr,
                                  .out = y.memory,
                                  .rows = s.rows,
                                  .columns = s.columns,
                                  .stride = in.stride});
            ExpectClose(y.Read(), out, Tolerance(type), "out");
            table().gate_backward(nullptr, type,
                                  {.activation = act,
                                   .u = on.memory,
                                   .v = Behind(on, in.second),
                                   .mask = masked ? masks.memory : nullptr,
                                   .dout = dy.memory,
                                   .du = d.memory,
                                   .dv = Behind(d, in.second),
                                   .rows = s.rows,
                                   .columns = s.columns,
                                   .stride = in.stride});
            ExpectClose(d.Read(), gradient, Tolerance(type), "du and dv");
          }
}

TEST_P(GatesTest, Relu) {
  for (const DataType type : kTypes)
    for (const bool masked : {false, true})
      for (const int64_t n : {1, 8, 99, 2048, 5000}) {
        const Values x = Random(n, type), dy = Random(n, type);
        Values mask(n, 1.0), y(n), dx(n);
        if (masked)
          for (double& m : mask) m = Chance(0.3) ? 0 : 1.25;
        for (size_t i = 0; i < x.size(); ++i) {
          y[i] = std::max(x[i], 0.0) * mask[i];
          dx[i] = x[i] > 0 ? dy[i] * mask[i] : 0;
        }
        const Array on = Upload(x, type), masks = Upload(mask, type), g = Upload(dy, type);
        table().relu_forward(nullptr, type,
                             {.x = on.memory, .mask = masked ? masks.memory : nullptr, .y = on.memory, .n = n});
        ExpectClose(on.Read(), y, Tolerance(type), "y");
        table().relu_backward(
            nullptr, type,
            {.dy = g.memory, .y = on.memory, .mask = masked ? masks.memory : nullptr, .dx = g.memory, .n = n});
        ExpectClose(g.Read(), dx, Tolerance(type), "dx");
      }
}

TEST_P(GatesTest, GruReset) {
  for (const DataType type : kTypes)
    for (const bool added : {false, true})
      for (const Shape s : kShapes) {
        const int64_t n = s.rows * s.columns;
        const Values x = Random(n, type), dy = Random(n, type), before = Random(n, type);
        const Pair gates = Layout(Random(2 * n, type), s, true);  // update, reset
        Values y(n), dx(n), dgates(2 * n);
        for (int64_t r = 0; r < s.rows; ++r)
          for (int64_t c = 0; c < s.columns; ++c) {
            const size_t at = static_cast<size_t>(r * s.columns + c);
            const double g = Sigmoid(gates.both[gates.V(r, c)]);
            y[at] = g * x[at];
            dx[at] = g * dy[at] + (added ? before[at] : 0);
            dgates[gates.U(r, c)] = 7;  // the update's half is another kernel's
            dgates[gates.V(r, c)] = dy[at] * x[at] * g * (1 - g);
          }
        const Array in_x = Upload(x, type), in = Upload(gates.both, type), out = Empty(n, type),
                    in_dy = Upload(dy, type), sum = Upload(before, type), d = Upload(Values(2 * n, 7.0), type);
        table().gru_reset_forward(nullptr, type,
                                  {.x = in_x.memory,
                                   .reset = Behind(in, s.columns),
                                   .y = out.memory,
                                   .rows = s.rows,
                                   .d = s.columns,
                                   .stride = gates.stride});
        ExpectClose(out.Read(), y, Tolerance(type), "y");
        table().gru_reset_backward(nullptr, type,
                                   {.x = in_x.memory,
                                    .reset = Behind(in, s.columns),
                                    .dy = in_dy.memory,
                                    .dx_before = added ? sum.memory : nullptr,
                                    .dx = sum.memory,
                                    .dreset = Behind(d, s.columns),
                                    .rows = s.rows,
                                    .d = s.columns,
                                    .stride = gates.stride});
        ExpectClose(sum.Read(), dx, Tolerance(type), "dx");
        ExpectClose(d.Read(), dgates, Tolerance(type), "dreset");
      }
}

TEST_P(GatesTest, GruMix) {
  for (const DataType type : kTypes)
    for (const Shape s : kShapes) {
      const int64_t n = s.rows * s.columns;
      const Values x = Random(n, type), dy = Random(n, type), candidate = Random(n, type);
      const Pair gates = Layout(Random(2 * n, type), s, true);
      Values y(n), dx(n), dcandidate(n), dgates(2 * n, 7.0);
      for (int64_t r = 0; r < s.rows; ++r)
        for (int64_t c = 0; c < s.columns; ++c) {
          const size_t at = static_cast<size_t>(r * s.columns + c);
          const double u = Sigmoid(gates.both[gates.U(r, c)]), t = std::tanh(candidate[at]);
          y[at] = (1 - u) * x[at] + u * t;
          dx[at] = dy[at] * (1 - u);
          dgates[gates.U(r, c)] = dy[at] * (t - x[at]) * u * (1 - u);
          dcandidate[at] = dy[at] * u * (1 - t * t);
        }
      const Array in_x = Upload(x, type), in = Upload(gates.both, type), in_c = Upload(candidate, type),
                  in_dy = Upload(dy, type), out = Empty(n, type), out_dx = Empty(n, type), out_dc = Empty(n, type),
                  d = Upload(Values(2 * n, 7.0), type);
      table().gru_mix_forward(nullptr, type,
                              {.x = in_x.memory,
                               .update = in.memory,
                               .candidate = in_c.memory,
                               .y = out.memory,
                               .rows = s.rows,
                               .d = s.columns,
                               .stride = gates.stride});
      ExpectClose(out.Read(), y, Tolerance(type), "y");
      table().gru_mix_backward(nullptr, type,
                               {.x = in_x.memory,
                                .update = in.memory,
                                .candidate = in_c.memory,
                                .dy = in_dy.memory,
                                .dx = out_dx.memory,
                                .dupdate = d.memory,
                                .dcandidate = out_dc.memory,
                                .rows = s.rows,
                                .d = s.columns,
                                .stride = gates.stride});
      ExpectClose(out_dx.Read(), dx, Tolerance(type), "dx");
      ExpectClose(d.Read(), dgates, Tolerance(type), "dupdate");
      ExpectClose(out_dc.Read(), dcandidate, Tolerance(type), "dcandidate");
    }
}

}  // namespace
}  // namespace allometry::trainer::kernels
