#pragma once

#include <Eigen/Core>
#include <array>
#include <span>
#include <vector>

// Separable least squares: y = sum_j c_j phi_j(u; theta), c_j >= 0, by variable projection (Golub and Pereyra 1973):
// the c are solved at every theta, and theta is sought by Levenberg and Marquardt's method inside a box, with Kaufman's
// (1975) form of the derivative. Pure functions; thread-safe.
namespace allometry::analysis {

constexpr int kMostLinear = 3, kMostNonlinear = 4;

// A value of each basis function and its derivative by each theta, at one point.
struct BasisValues {
  std::array<double, kMostLinear> value = {};
  std::array<std::array<double, kMostNonlinear>, kMostLinear> slope = {};
};

struct ThetaRange {
  double low = 0, high = 0;                // the box
  double first_start = 0, last_start = 0;  // the grid of starts
  int starts = 1;
};

struct ProjectionBasis {
  int linear = 0;
  std::vector<ThetaRange> theta;
  BasisValues (*evaluate)(const double* theta, double u0, double u1) = nullptr;
};

struct ProjectionPoints {
  std::vector<double> u0, u1, y;
  std::vector<double> weight;  // of the squared residual
};

using ThetaMatrix =
    Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor, kMostNonlinear, kMostNonlinear>;
using ThetaVector = Eigen::Matrix<double, Eigen::Dynamic, 1, 0, kMostNonlinear, 1>;

// The objective with c solved, and its derivatives by theta.
struct Projected {
  double objective = 0;  // half the weighted sum of squares
  std::array<double, kMostLinear> linear = {};
  ThetaVector gradient;
  ThetaMatrix gauss_newton;  // with c projected out
  bool determined = true;    // the basis functions in use are independent
};

struct ProjectionResult {
  ThetaVector theta;
  Projected at;
};

Projected ProjectAt(const ProjectionBasis& basis, const ProjectionPoints& points, const ThetaVector& theta);

// Ends when no step can gain more than `least_gain` of the objective.
ProjectionResult FitProjection(const ProjectionBasis& basis, const ProjectionPoints& points, const ThetaVector& start,
                               double least_gain);

// The product of the ranges' grids.
std::vector<ThetaVector> ThetaGrid(const ProjectionBasis& basis);

}  // namespace allometry::analysis
