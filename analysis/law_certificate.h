#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "analysis/law_solver.h"

// What tells a minimum from a number at which an optimiser stopped (docs/science.md, "Certificate"). Pure functions.
namespace allometry::analysis {

struct Certificate {
  // Relative offset of Bates and Watts 1981: length of the gradient in the tangent plane against that of the residuals
  // orthogonal to it, each by degree of freedom. Does not change with the scale of the loss or of any parameter.
  double scaled_gradient = 0;
  // Largest eigenvalue of the Gauss-Newton matrix over the smallest, columns scaled to length 1.
  double condition = 0;
  int starts = 0;                  // 0: a fit from elsewhere, of whose starts nothing is known
  int starts_at_best = 0;          // ended within 1e-6 of the lowest objective
  double spread = 0;               // largest relative difference of a parameter between those
  double distance_from_start = 0;  // largest relative change of a parameter from the best start
  std::vector<std::string> active_bounds;
  std::optional<double> outlier_share;  // of points beyond Huber's delta, where the objective is an absolute value
  std::vector<std::string> failures;    // empty: converged
  std::vector<std::string> notes;       // what a reader should know and no failure
};

// `starts` may be empty. `start` is where the fit began, empty if that is unknown.
Certificate Certify(const LawSolver& solver, std::span<const double> parameters, std::span<const double> start,
                    std::span<const StartResult> starts);

}  // namespace allometry::analysis
