#pragma once

#include <cmath>
#include <random>
#include <vector>

#include "analysis/law_forms.h"

// Made-up runs with a known truth.
namespace allometry::analysis {

// E, A, B, alpha, beta near those of Chinchilla's runs.
inline const std::vector<double> kLawTruth{1.8, 480, 2100, 0.35, 0.37};

// Six sizes from 5e7 to 5e9, each at six ratios of tokens to parameters, with normal noise of `sd` in ln loss.
inline std::vector<LawPoint> MadeUpRuns(double sd, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<LawPoint> points;
  for (int size = 0; size < 6; ++size) {
    for (int ratio = 0; ratio < 6; ++ratio) {
      const double n = 5e7 * std::pow(10, 0.4 * size), d = n * 5 * std::pow(2, ratio);
      const double loss = EvaluateLaw(LawForm::kParametersTokens, kLawTruth, n, d);
      points.push_back({n, d, loss * std::exp(sd * normal(generator))});
    }
  }
  return points;
}

}  // namespace allometry::analysis
