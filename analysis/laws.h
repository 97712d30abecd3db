#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "analysis/law_bootstrap.h"
#include "analysis/law_certificate.h"
#include "analysis/law_forms.h"
#include "common/json.h"
#include "common/result.h"

// Fits of scaling laws, with a certificate each (docs/science.md, "Laws"). Pure functions; what is drawn depends on the
// seed alone.
namespace allometry::analysis {

struct LawOptions {
  double confidence = 0.95;  // in (0, 1)
  int replicates = 4000;     // of the bootstrap; 0: no intervals. At most 1,000,000
  uint64_t seed = 1;
  double delta = 1e-3;  // Huber's, in ln loss; above 0
  int threads = 0;      // 0: all that the machine has. Changes no result
};

// kInvalidArgument, for options out of these ranges.
common::Status CheckLawOptions(const LawOptions& options);

enum class LawMethod {
  kHuber,       // "huber": sum of Huber losses of ln L
  kProjection,  // "variable_projection": least squares
};
const char* LawMethodName(LawMethod method);

struct LawEstimate {
  std::string name;
  double value = 0;
  // Absent without a bootstrap, or when fewer than half of the replicates have a fit.
  std::optional<Range> interval;
  double standard_error = 0;  // standard deviation over the replicates; 0 without
};

// The estimates of one method. They mean something only if it converged: check that first.
struct LawFit {
  LawMethod method = LawMethod::kHuber;
  std::vector<LawEstimate> estimates;  // in the order of LawParameterNames
  double objective = 0;                // sum of Huber losses, or half the sum of squared (relative) residuals
  Certificate certificate;
  std::vector<std::vector<double>> replicates;  // parameters of each; empty where the sample determined none
  int failed_replicates = 0;

  bool converged() const { return certificate.failures.empty(); }
  std::vector<double> Parameters() const;
};

// One parameter as the two methods see it, Huber's minus the other's.
struct LawDisagreement {
  std::string name;
  double difference = 0;
  std::optional<Range> interval;  // over paired replicates
};

struct LawResult {
  LawForm form = LawForm::kParametersTokens;
  LawOptions options;
  size_t points = 0;
  // kParametersTokens and kCompute: Huber's, then the projection's. Other forms: the projection's.
  std::vector<LawFit> fits;
  std::vector<LawDisagreement> disagreement;  // empty with one method
};

// kInvalidArgument: bad options, or points that CheckLawPoints refuses.
common::Result<LawResult> FitLaw(LawForm form, std::span<const LawPoint> points, const LawOptions& options);

}  // namespace allometry::analysis
