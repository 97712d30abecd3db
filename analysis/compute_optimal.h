#pragma once

#include <optional>
#include <span>

#include "analysis/laws.h"

namespace allometry::analysis {

// The N and D of least loss for a budget C = 6 N D under L = E + A/N^alpha + B/D^beta (Hoffmann et al. 2022, eq. 4):
// N = G (C/6)^(beta/(alpha+beta)), D = (C/6)/N, G = (alpha A/(beta B))^(1/(alpha+beta)).
struct Allocation {
  double parameters = 0, tokens = 0;
  double loss = 0;      // predicted there, nats
  double exponent = 0;  // of N in C: beta/(alpha+beta)
};

// `law` is (E, A, B, alpha, beta). Empty unless A, B, alpha and beta are positive and finite.
std::optional<Allocation> ComputeOptimal(std::span<const double> law, double flops);

struct AllocationResult {
  Allocation at;
  double flops = 0;
  // Percentiles over the replicates of the fit.
  std::optional<Range> parameters, tokens, loss, exponent;
};

// kInvalidArgument: a budget that is not positive. kFailedPrecondition: the fit is not of kParametersTokens, did not
// converge, or has no optimum.
common::Result<AllocationResult> Allocate(const LawFit& fit, double flops, double confidence);

}  // namespace allometry::analysis
