#include "analysis/compute_optimal.h"

#include <cmath>

namespace allometry::analysis {

std::optional<Allocation> ComputeOptimal(std::span<const double> law, double flops) {
  const double a = law[1], b = law[2], alpha = law[3], beta = law[4];
  if (!(a > 0 && b > 0 && alpha > 0 && beta > 0)) return std::nullopt;
  const double log_g = (std::log(alpha / beta) + std::log(a) - std::log(b)) / (alpha + beta);
  Allocation out;
  out.exponent = beta / (alpha + beta);
  out.parameters = std::exp(log_g + out.exponent * std::log(flops / 6));
  out.tokens = flops / 6 / out.parameters;
  out.loss = EvaluateLaw(LawForm::kParametersTokens, law, out.parameters, out.tokens);
  if (!std::isfinite(out.parameters) || !std::isfinite(out.loss)) return std::nullopt;
  return out;
}

common::Result<AllocationResult> Allocate(const LawFit& fit, double flops, double confidence) {
  if (!(flops > 0) || !std::isfinite(flops)) return common::InvalidArgument("the budget must be above 0 FLOPs");
  const std::vector<double> law = fit.Parameters();
  if (law.size() != LawParameterNames(LawForm::kParametersTokens).size())
    return common::FailedPrecondition("an allocation needs a fit of L(N, D)");
  if (!fit.converged())
    return common::FailedPrecondition("the fit did not converge: " + fit.certificate.failures.front());
  const std::optional<Allocation> at = ComputeOptimal(law, flops);
  if (!at)
    return common::FailedPrecondition("the fitted law has no optimum: a coefficient or exponent is not positive");
  AllocationResult out{*at, flops, {}, {}, {}, {}};
  std::vector<double> parameters, tokens, loss, exponent;
  for (const std::vector<double>& replicate : fit.replicates) {
    const std::optional<Allocation> draw = replicate.empty() ? std::nullopt : ComputeOptimal(replicate, flops);
    if (!draw) continue;
    parameters.push_back(draw->parameters), tokens.push_back(draw->tokens);
    loss.push_back(draw->loss), exponent.push_back(draw->exponent);
  }
  // As for a fit's own intervals: not from a minority of the replicates.
  if (2 * parameters.size() <= fit.replicates.size()) return out;
  out.parameters = PercentileInterval(parameters, confidence);
  out.tokens = PercentileInterval(tokens, confidence);
  out.loss = PercentileInterval(loss, confidence);
  out.exponent = PercentileInterval(exponent, confidence);
  return out;
}

}  // namespace allometry::analysis
