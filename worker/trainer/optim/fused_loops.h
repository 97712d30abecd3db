#pragma once

#include <cstdint>

// The inner loops of the optimisers over contiguous float32 memory on a CPU. Sums are kept in double per block of fixed
// length, so that their value depends on the data only.
namespace allometry::trainer::loops {

double SumOfSquares(const float* x, int64_t n);

void Scale(float* x, int64_t n, float factor);

// v <- b v + (1-b) (g^2 + epsilon); returns the sum of (g / sqrt(v))^2.
double UpdateSecondMoment(float* v, const float* g, int64_t n, float decay, float epsilon);

// x <- keep x - step g / sqrt(v)
void ApplyUpdate(float* x, const float* g, const float* v, int64_t n, float keep, float step);

// Adds g^2 + epsilon of one row to column_sums and returns the row's sum of it.
double AddSquares(const float* g, float* column_sums, int64_t columns, float epsilon);

// Sum over one row of (g row_factor column_factors[j])^2.
double SumOfScaledSquares(const float* g, const float* column_factors, int64_t columns, float row_factor);

// x <- keep x - row_factor g column_factors[j]; the step size is part of row_factor.
void ApplyFactoredUpdate(float* x, const float* g, const float* column_factors, int64_t columns, float keep,
                         float row_factor);

}  // namespace allometry::trainer::loops
