#include "tests/unit/kernels/kernel_case.h"

namespace allometry::trainer::kernels {
namespace {

using NormTest = KernelTest;
ALLO_KERNEL_TEST(NormTest);

struct Shape {
  size_t rows, d;
};
const Shape kShapes[] = {{1, 1}, {3, 7}, {5, 64}, {9, 100}, {17, 129}, {2100, 8}, {33, 512}, {6, 1000}};

Values Scales(const Values& x, Shape s) {
  Values scales(s.rows);
  for (size_t r = 0; r < s.rows; ++r) {
    double squares = 0;
    for (size_t i = 0; i < s.d; ++i) squares += x[r * s.d + i] * x[r * s.d + i];
    scales[r] = 1 / std::sqrt(squares / static_cast<double>(s.d) + 1e-6);
  }
  return scales;
}

TEST_P(NormTest, Forward) {
  for (const DataType type : kTypes)
    for (const Shape s : kShapes) {
      const Values x = Random(s.rows * s.d, type, 3), weight = Random(s.d, type), scales = Scales(x, s);
      Values y(x.size());
      for (size_t i = 0; i < y.size(); ++i) y[i] = x[i] * scales[i / s.d] * weight[i % s.d];
      const Array dx = Upload(x, type), dw = Upload(weight, type), dy = Empty(x.size(), type),
                  scale = Empty(s.rows, DataType::kFloat32);
      table().norm_forward(nullptr, type,
                           {.x = dx.memory,
                            .weight = dw.memory,
                            .y = dy.memory,
                            .scale = scale.floats(),
                            .rows = static_cast<int64_t>(s.rows),
                            .d = static_cast<int64_t>(s.d)});
      ExpectClose(dy.Read(), y, Tolerance(type), "y");
      ExpectClose(scale.Read(), scales, Tolerance(DataType::kFloat32), "scale");
    }
}

TEST_P(NormTest, Backward) {
  for (const DataType type : kTypes)
    for (const bool with_residual : {false, true})
      for (const Shape s : kShapes) {
        const Values x = Random(s.rows * s.d, type, 3), weight = Random(s.d, type), dy = Random(x.size(), type),
                     residual = Random(x.size(), type), scales = Scales(x, s);
        Values dx(x.size()), dweight(s.d);
        for (size_t r = 0; r < s.rows; ++r) {
          double mean = 0;
          for (size_t i = 0; i < s.d; ++i) mean += dy[r * s.d + i] * weight[i] * x[r * s.d + i];
          mean /= static_cast<double>(s.d);
          for (size_t i = 0; i < s.d; ++i) {
            const size_t at = r * s.d + i;
            dx[at] = scales[r] * (dy[at] * weight[i] - x[at] * scales[r] * scales[r] * mean);
            if (with_residual) dx[at] += residual[at];
            dweight[i] += dy[at] * x[at] * scales[r];
          }
        }
        const auto rows = static_cast<int64_t>(s.rows), d = static_cast<int64_t>(s.d);
        const Array in_dy = Upload(dy, type), in_x = Upload(x, type), in_w = Upload(weight, type),
                    in_residual = Upload(residual, type), scale = Upload(scales, DataType::kFloat32),
                    out_dx = Empty(x.size(), type), out_dw = Empty(s.d, type),
                    workspace = Empty(static_cast<size_t>(NormWorkspace(rows, d)), DataType::kFloat32);
        table().norm_backward(nullptr, type,
                              {.dy = in_dy.memory,
                               .x = in_x.memory,
                               .weight = in_w.memory,
                               .scale = scale.floats(),
                               .residual = with_residual ? in_residual.memory : nullptr,
                               .dx = out_dx.memory,
                               .dweight = out_dw.memory,
                               .workspace = workspace.floats(),
                               .rows = rows,
                               .d = d});
        ExpectClose(out_dx.Read(), dx, Tolerance(type), "dx", 1);
        ExpectClose(out_dw.Read(), dweight, Tolerance(type), "dweight");
      }
}

// A block's shared memory holds one warp's sums where a row is wide.
TEST_P(NormTest, WidestRow) {
  const size_t d = static_cast<size_t>(kLargestNormWidth);
  const Values ones(d, 1.0);
  const Array x = Upload(ones, DataType::kFloat32), scale = Upload({1.0}, DataType::kFloat32),
              dx = Empty(d, DataType::kFloat32), dw = Empty(d, DataType::kFloat32),
              workspace = Empty(d, DataType::kFloat32);
  table().norm_backward(nullptr, DataType::kFloat32,
                        {.dy = x.memory,
                         .x = x.memory,
                         .weight = x.memory,
                         .scale = scale.floats(),
                         .dx = dx.memory,
                         .dweight = dw.memory,
                         .workspace = workspace.floats(),
                         .rows = 1,
                         .d = kLargestNormWidth});
  ExpectClose(dw.Read(), ones, 1e-6, "dweight");
  for (const double value : dx.Read()) ASSERT_NEAR(value, 0, 1e-6);
}

}  // namespace
}  // namespace allometry::trainer::kernels
