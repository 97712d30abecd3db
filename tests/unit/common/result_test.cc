#include "common/result.h"

#include <gtest/gtest.h>

#include <set>

namespace allometry::common {
namespace {

Result<int> Half(int v) {
  if (v % 2 != 0) return InvalidArgument("odd");
  return v / 2;
}

Result<int> Quarter(int v) {
  ALLO_ASSIGN_OR_RETURN(int half, Half(v));
  ALLO_ASSIGN_OR_RETURN(int quarter, Half(half));
  return quarter;
}

Status Check(int v) {
  ALLO_RETURN_IF_ERROR(Quarter(v));
  return Ok();
}

TEST(Result, CarriesValueOrError) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_EQ(Quarter(6).error().message, "odd");
  EXPECT_TRUE(Check(4).ok());
  EXPECT_EQ(Check(3).error().code, ErrorCode::kInvalidArgument);
}

TEST(Result, ExitCodesAreDistinctAndNeverSuccess) {
  std::set<int> codes;
  for (int c = 0; c <= static_cast<int>(ErrorCode::kInternal); ++c) codes.insert(ExitCodeOf(static_cast<ErrorCode>(c)));
  EXPECT_EQ(codes.size(), static_cast<size_t>(ErrorCode::kInternal) + 1);
  EXPECT_FALSE(codes.count(0));
  EXPECT_FALSE(codes.count(1)) << "1 is kept for 'finished, with failed runs'";
}

}  // namespace
}  // namespace allometry::common
