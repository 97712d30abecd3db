#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

// The shapes that laws have (docs/science.md, "Laws"). Pure functions.
namespace allometry::analysis {

enum class LawForm {
  kParametersTokens,  // L(N, D) = E + A/N^alpha + B/D^beta: Hoffmann et al. 2022, arXiv 2203.15556, eq. 2
  kTied,              // the same with beta = alpha: Gadre et al. 2024, arXiv 2403.08540, written there with D = M N
  kCompute,           // L(C) = E + A/C^alpha
  kBroken,       // L(C) = a + b C^-c0 (1 + (C/d)^(1/f))^(-c1 f): Caballero et al. 2022, arXiv 2210.14891, one break
  kSigmoid,      // accuracy(L) = b + a/(1 + exp(k (L - L0))): Bhagia et al. 2024, arXiv 2412.04403
  kExponential,  // error(L) = eps - k exp(-gamma L): Gadre et al. 2024
};

const char* LawFormName(LawForm form);  // "parameters_tokens", "tied", "compute", "broken", "sigmoid", "exponential"
common::Result<LawForm> ParseLawForm(std::string_view name);

// In the order in which fits give their parameters.
const std::vector<std::string>& LawParameterNames(LawForm form);

// One run, or the mean of several.
struct LawPoint {
  double x = 0;       // N, a compute in FLOPs, or a loss in nats: what the form depends on; positive
  double tokens = 0;  // D, positive; only for the forms of two sizes
  double y = 0;       // a loss in nats, positive; or an accuracy or error, 0 to 1
};

bool HasTokens(LawForm form);     // the form depends on N and D
bool PredictsLoss(LawForm form);  // y is a loss, and not an accuracy or error

// The law's value; `parameters` are as many as LawParameterNames gives.
double EvaluateLaw(LawForm form, std::span<const double> parameters, double x, double tokens);

// Refuses what no law can be fitted to, with the reason: a value that is not from 1e-60 to 1e60 (an accuracy or
// error outside 0 to 1), fewer distinct points than parameters + 1, or one size only.
common::Status CheckLawPoints(LawForm form, std::span<const LawPoint> points);

}  // namespace allometry::analysis
