#include "analysis/expected_draws.h"

#include <cmath>

#include "analysis/mean.h"

namespace allometry::analysis {

std::optional<SeedSpread> PooledSpread(const std::vector<const std::vector<double>*>& seeds,
                                       std::optional<double> given) {
  double squares = 0, degrees = 0;
  for (const std::vector<double>* qualities : seeds) {
    const double mean = Mean(*qualities);
    for (double q : *qualities) squares += (q - mean) * (q - mean);
    degrees += static_cast<double>(qualities->size()) - 1;
  }
  if (degrees > 0) return SeedSpread{std::sqrt(squares / degrees), degrees};
  if (given) return SeedSpread{*given, 0};
  return std::nullopt;
}

void ExpectedDraws::Next(const std::vector<double>& means, const std::vector<int64_t>& seeds,
                         std::vector<double>* drawn) {
  const double sd =
      spread_.degrees > 0 ? spread_.sd * std::sqrt(spread_.degrees / chi_squared_(generator_)) : spread_.sd;
  for (size_t i = 0; i < means.size(); ++i)
    (*drawn)[i] = means[i] + normal_(generator_) * sd / std::sqrt(static_cast<double>(seeds[i]));
}

}  // namespace allometry::analysis
