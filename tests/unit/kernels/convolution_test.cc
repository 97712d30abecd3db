#include "tests/unit/kernels/kernel_case.h"

namespace allometry::trainer::kernels {
namespace {

using ConvolutionTest = KernelTest;
ALLO_KERNEL_TEST(ConvolutionTest);

struct Shape {
  int64_t batch, length, channels, width, first;
  int64_t size() const { return batch * length * channels; }
  // x[b][t][c], zero outside; -1 where it is outside.
  int64_t At(int64_t b, int64_t t, int64_t c) const {
    return t < 0 || t >= length ? -1 : (b * length + t) * channels + c;
  }
};
// Causal, centred and far-off windows; longer than the sequence; sequences of several parts.
const Shape kShapes[] = {{1, 1, 1, 1, 0},   {2, 5, 3, 3, -1},  {2, 9, 8, 7, -6},    {3, 17, 16, 4, -2},
                         {1, 4, 12, 9, -4}, {2, 300, 5, 3, 0}, {1, 513, 8, 15, -7}, {2, 6, 24, 5, 3}};

template <typename F>
void ForAll(const Shape& s, F f) {
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t t = 0; t < s.length; ++t)
      for (int64_t c = 0; c < s.channels; ++c)
        for (int64_t j = 0; j < s.width; ++j)
          if (const int64_t from = s.At(b, t + s.first + j, c); from >= 0) f(s.At(b, t, c), from, j, c);
}

TEST_P(ConvolutionTest, ForwardAndGradients) {
  for (const DataType type : kTypes)
    for (const Shape& s : kShapes) {
      const Values x = Random(s.size(), type), dy = Random(s.size(), type),
                   kernel = Random(s.width * s.channels, DataType::kFloat32);
      Values y(x.size()), dx(x.size()), dkernel(kernel.size());
      ForAll(s, [&](int64_t to, int64_t from, int64_t j, int64_t c) {
        y[to] += kernel[j * s.channels + c] * x[from];
        dx[from] += kernel[j * s.channels + c] * dy[to];
        dkernel[j * s.channels + c] += dy[to] * x[from];
      });
      const Array in_x = Upload(x, type), in_dy = Upload(dy, type), in_kernel = Upload(kernel, DataType::kFloat32),
                  out_y = Empty(x.size(), type), out_dx = Empty(x.size(), type),
                  out_dkernel = Empty(kernel.size(), DataType::kFloat32),
                  workspace = Empty(ConvolveWorkspace(s.batch, s.length, s.channels, s.width), DataType::kFloat32);
      ConvolveArgs args{.x = in_x.memory,
                        .kernel = in_kernel.floats(),
                        .y = out_y.memory,
                        .batch = s.batch,
                        .length = s.length,
                        .channels = s.channels,
                        .width = s.width,
                        .first = s.first};
      table().convolve(nullptr, type, args);
      ExpectClose(out_y.Read(), y, Tolerance(type), "y", 1);
      args.x = in_dy.memory;
      args.y = out_dx.memory;
      args.first = -s.first - (s.width - 1);
      args.reversed = true;
      table().convolve(nullptr, type, args);
      ExpectClose(out_dx.Read(), dx, Tolerance(type), "dx", 1);
      table().convolve_kernel_gradient(nullptr, type,
                                       {.x = in_x.memory,
                                        .dy = in_dy.memory,
                                        .dkernel = out_dkernel.floats(),
                                        .workspace = workspace.floats(),
                                        .batch = s.batch,
                                        .length = s.length,
                                        .channels = s.channels,
                                        .width = s.width,
                                        .first = s.first});
      ExpectClose(out_dkernel.Read(), dkernel, 2e-5, "dkernel", 1);
    }
}

// Softmax over the taps of logits [b, t, j, k].
Values TapSoftmax(const Shape& s, int64_t kernels, const Values& logits) {
  Values p(logits.size());
  for (int64_t row = 0; row < s.batch * s.length; ++row)
    for (int64_t k = 0; k < kernels; ++k) {
      const auto at = [&](int64_t j) { return (row * s.width + j) * kernels + k; };
      double sum = 0;
      for (int64_t j = 0; j < s.width; ++j) sum += std::exp(logits[at(j)]);
      for (int64_t j = 0; j < s.width; ++j) p[at(j)] = std::exp(logits[at(j)]) / sum;
    }
  return p;
}

TEST_P(ConvolutionTest, Dynamic) {
  for (const DataType type : kTypes)
    for (const Shape& s : kShapes)
      for (const int64_t each : {1, 2, 3, 8}) {  // channels of a kernel
        if (s.channels % each != 0) continue;
        const int64_t kernels = s.channels / each;
        const Values x = Random(s.size(), type), dy = Random(s.size(), type),
                     logits = Random(s.batch * s.length * s.width * kernels, type), p = TapSoftmax(s, kernels, logits);
        const auto tap = [&](int64_t to, int64_t j, int64_t c) {
          return (to / s.channels * s.width + j) * kernels + c / each;
        };
        Values y(x.size()), dx(x.size()), dlogits(logits.size()), dp(logits.size());
        ForAll(s, [&](int64_t to, int64_t from, int64_t j, int64_t c) {
          y[to] += p[tap(to, j, c)] * x[from];
          dx[from] += p[tap(to, j, c)] * dy[to];
          dp[tap(to, j, c)] += dy[to] * x[from];
        });
        for (int64_t row = 0; row < s.batch * s.length; ++row)
          for (int64_t k = 0; k < kernels; ++k) {
            const auto at = [&](int64_t j) { return (row * s.width + j) * kernels + k; };
            double mean = 0;
            for (int64_t j = 0; j < s.width; ++j) mean += p[at(j)] * dp[at(j)];
            for (int64_t j = 0; j < s.width; ++j) dlogits[at(j)] = p[at(j)] * (dp[at(j)] - mean);
          }
        const Array in_x = Upload(x, type), in_logits = Upload(logits, type), in_dy = Upload(dy, type),
                    out_y = Empty(x.size(), type), out_dx = Empty(x.size(), type),
                    out_dlogits = Empty(logits.size(), type),
                    workspace = Empty(s.batch * s.length * kernels, DataType::kFloat32);
        table().dynamic_convolve(nullptr, type,
                                 {.x = in_x.memory,
                                  .logits = in_logits.memory,
                                  .y = out_y.memory,
                                  .batch = s.batch,
                                  .length = s.length,
                                  .channels = s.channels,
                                  .width = s.width,
                                  .kernels = kernels,
                                  .first = s.first});
        ExpectClose(out_y.Read(), y, Tolerance(type), "y", 1);
        table().dynamic_convolve_backward(nullptr, type,
                                          {.x = in_x.memory,
                                           .logits = in_logits.memory,
                                           .y = out_y.memory,
                                           .dy = in_dy.memory,
                                           .dx = out_dx.memory,
                                           .dlogits = out_dlogits.memory,
                                           .workspace = workspace.floats(),
                                           .batch = s.batch,
                                           .length = s.length,
                                           .channels = s.channels,
                                           .width = s.width,
                                           .kernels = kernels,
                                           .first = s.first});
        ExpectClose(out_dx.Read(), dx, Tolerance(type), "dx", 1);
        // Through y, which is rounded to the type.
        ExpectClose(out_dlogits.Read(), dlogits, 2 * Tolerance(type), "dlogits", 1);
      }
}

}  // namespace
}  // namespace allometry::trainer::kernels
