#include "records/metric_chunk.h"

#include <gtest/gtest.h>

#include <limits>

namespace allometry::records {
namespace {

TEST(MetricChunk, PointsReadBackExactly) {
  const std::vector<int64_t> steps{
      0, 1, 100, 99, -5, std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()};
  const std::vector<double> values{1.5, -0.0, 1e-300, std::numeric_limits<double>::infinity(), 3, 4, 5};
  const auto points = UnpackPoints(PackPoints(steps, values), 7);
  ASSERT_TRUE(points.ok());
  EXPECT_EQ(points->steps, steps);
  EXPECT_EQ(points->values, values);
  EXPECT_FALSE(UnpackPoints(PackPoints(steps, values), 6).ok());
  EXPECT_FALSE(UnpackPoints("rubbish", 1).ok());
}

}  // namespace
}  // namespace allometry::records
