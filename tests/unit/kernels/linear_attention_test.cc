#include "tests/unit/kernels/kernel_case.h"

namespace allometry::trainer::kernels {
namespace {

using LinearAttentionTest = KernelTest;
ALLO_KERNEL_TEST(LinearAttentionTest);

struct Shape {
  int64_t rows, m, e;
};
const Shape kShapes[] = {{1, 1, 1}, {5, 7, 3}, {9, 64, 16}, {3, 266, 64}, {17, 40, 33}};

constexpr FeatureSide kSides[] = {FeatureSide::kQuery, FeatureSide::kKey, FeatureSide::kRelu};

double Exponent(FeatureSide side, const double* wx, const double* x, int64_t i, Shape s) {
  double shift = 0;
  if (side == FeatureSide::kQuery) shift = *std::max_element(wx, wx + s.m);
  if (side == FeatureSide::kKey)
    for (int64_t c = 0; c < s.e; ++c) shift += x[c] * x[c] / 2;
  return wx[i] - shift;
}

TEST_P(LinearAttentionTest, Features) {
  for (const DataType type : kTypes)
    for (const FeatureSide side : kSides)
      for (const Shape s : kShapes) {
        Values wx = Random(s.rows * s.m, type, 2), x = Random(s.rows * s.e, type, 0.5);
        const Values df = Random(wx.size(), type);
        for (int64_t i = 0; i < s.m; i += 2) wx[i] = 3;  // many share the maximum
        if (s.m > 3) wx[s.m + 3] = 70;                   // cut off, if it is a key's
        Values f(wx.size()), dwx(wx.size()), dx(x.size());
        const double scale = 1 / std::sqrt(static_cast<double>(s.m));
        for (int64_t r = 0; r < s.rows; ++r) {
          const double *row = wx.data() + r * s.m, *xr = x.data() + r * s.e;
          double total = 0;
          for (int64_t i = 0; i < s.m; ++i) {
            const double z = Exponent(side, row, xr, i, s), at = side == FeatureSide::kKey ? std::min(z, 60.0) : z;
            const double value = side == FeatureSide::kRelu ? std::max(z, 0.0) : std::exp(at);
            const double slope = side == FeatureSide::kRelu ? z > 0 : z > at ? 0 : value;
            f[r * s.m + i] = scale * (value + 1e-6);
            total += dwx[r * s.m + i] = scale * slope * df[r * s.m + i];
          }
          const double top = *std::max_element(row, row + s.m),
                       ties = static_cast<double>(std::count(row, row + s.m, top));
          if (side == FeatureSide::kQuery)
            for (int64_t i = 0; i < s.m; ++i)
              if (row[i] == top) dwx[r * s.m + i] -= total / ties;
          for (int64_t c = 0; c < s.e; ++c) dx[r * s.e + c] = -total * xr[c];
        }
        const bool key = side == FeatureSide::kKey;
        const Array in = Upload(wx, type), in_x = Upload(x, type), out = Empty(f.size(), type),
                    in_df = Upload(df, type), out_dwx = Empty(f.size(), type), out_dx = Empty(x.size(), type);
        table().features_forward(nullptr, type,
                                 {.side = side,
                                  .projections = in.memory,
                                  .x = key ? in_x.memory : nullptr,
                                  .features = out.memory,
                                  .rows = s.rows,
                                  .m = s.m,
                                  .e = s.e});
        // Relative to each: features span many orders.
        const Values got = out.Read();
        for (size_t i = 0; i < f.size(); ++i) ASSERT_NEAR(got[i], f[i], f[i] * Tolerance(type) + 1e-9) << i;
        table().features_backward(nullptr, type,
                                  {.side = side,
                                   .projections = in.memory,
                                   .x = key ? in_x.memory : nullptr,
                                   .dfeatures = in_df.memory,
                                   .dprojections = out_dwx.memory,
                                   .dx_square = key ? out_dx.memory : nullptr,
                                   .rows = s.rows,
                                   .m = s.m,
                                   .e = s.e});
        ExpectClose(out_dwx.Read(), dwx, Tolerance(type), "dprojections", 0.1);
        if (key) ExpectClose(out_dx.Read(), dx, Tolerance(type), "dx_square");
      }
}

TEST_P(LinearAttentionTest, CarriedSums) {
  for (const DataType type : kTypes)
    for (const bool backward : {false, true})
      for (const Shape s : {Shape{1, 1, 1}, Shape{3, 4, 7}, Shape{2, 9, 64}, Shape{5, 2, 1000}}) {  // n, chunks, size
        const Values x = Random(s.rows * s.m * s.e, type);
        Values sums(x.size());
        for (int64_t i = 0; i < s.rows * s.m * s.e; ++i) {
          const int64_t n = i / (s.m * s.e), g = i / s.e % s.m, c = i % s.e;
          for (int64_t h = backward ? g + 1 : 0; h < (backward ? s.m : g); ++h) sums[i] += x[(n * s.m + h) * s.e + c];
        }
        const Array in = Upload(x, type);
        table().carried_sums(
            nullptr, type,
            {.x = in.memory, .out = in.memory, .n = s.rows, .chunks = s.m, .size = s.e, .backward = backward});
        ExpectClose(in.Read(), sums, Tolerance(type), "sums", 1);
      }
}

TEST_P(LinearAttentionTest, Quotient) {
  for (const DataType type : kTypes)
    for (const int64_t d : {1, 7, 64, 100}) {
      constexpr int64_t kRows = 13;
      Values sums = Random(kRows * (d + 1), type);
      const Values dy = Random(kRows * d, type);
      for (int64_t r = 0; r < kRows; ++r) {
        double& z = sums[r * (d + 1) + d];
        z = r == 4 ? 0 : Rounded(std::abs(z) + 0.1, type);
        if (r == 4)
          for (int64_t i = 0; i < d; ++i) sums[r * (d + 1) + i] = 0;  // no keys at all
      }
      Values y(kRows * d), dsums(sums.size());
      for (int64_t r = 0; r < kRows; ++r) {
        const double z = std::max(sums[r * (d + 1) + d], 1e-12);
        double dot = 0;
        for (int64_t i = 0; i < d; ++i) {
          y[r * d + i] = sums[r * (d + 1) + i] / z;
          dsums[r * (d + 1) + i] = dy[r * d + i] / z;
          dot += dy[r * d + i] * y[r * d + i] / z;
        }
        if (r != 4) dsums[r * (d + 1) + d] = -dot;
      }
      const Array in = Upload(sums, type), in_dy = Upload(dy, type), out = Empty(y.size(), type),
                  d_out = Empty(sums.size(), type);
      table().quotient_forward(nullptr, type, {.sums = in.memory, .y = out.memory, .rows = kRows, .d = d});
      ExpectClose(out.Read(), y, Tolerance(type), "y");
      table().quotient_backward(nullptr, type,
                                {.sums = in.memory, .dy = in_dy.memory, .dsums = d_out.memory, .rows = kRows, .d = d});
      Values got = d_out.Read();
      for (int64_t i = 0; i <= d; ++i) {  // the row without keys, whose gradient is beyond all others
        const int64_t at = 4 * (d + 1) + i;
        ASSERT_NEAR(got[at], dsums[at], std::abs(dsums[at]) * 5e-3);
        got[at] = dsums[at] = 0;
      }
      ExpectClose(got, dsums, Tolerance(type), "dsums", 1);
    }
}

}  // namespace
}  // namespace allometry::trainer::kernels
