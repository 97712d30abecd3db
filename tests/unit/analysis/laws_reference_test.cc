// Both estimators of every law against SciPy's optimisers (make_laws_reference.py).

#include <gtest/gtest.h>

#include <cmath>

#include "analysis/laws.h"
#include "common/json.h"

namespace allometry::analysis {
namespace {

common::Json ReferenceFile(const char* name) {
  return common::ReadJsonFile(std::string(ALLOMETRY_SOURCE_DIR) + "/tests/unit/analysis/data/" + name).value();
}

std::vector<LawPoint> PointsIn(const common::Json& rows) {
  std::vector<LawPoint> points;
  for (const common::Json& row : rows)
    points.push_back({row[0].get<double>(), row[1].get<double>(), row[2].get<double>()});
  return points;
}

TEST(LawReference, EveryFormAndMethodAgreesWithSciPy) {
  const common::Json runs = ReferenceFile("law_runs.json"), reference = ReferenceFile("laws_reference.json");
  for (const auto& [name, wanted] : reference.items()) {
    const LawForm form = ParseLawForm(name).value();
    const LawResult result = FitLaw(form, PointsIn(runs[name]), {.replicates = 0}).value();
    ASSERT_EQ(result.fits.size(), wanted.size()) << name;
    for (const LawFit& fit : result.fits) {
      const common::Json& w = wanted[LawMethodName(fit.method)];
      // Neither may be above the other by more than the optimisers' tolerance.
      EXPECT_NEAR(fit.objective / w["objective"].get<double>(), 1, 1e-6) << name << " " << LawMethodName(fit.method);
      for (size_t i = 0; i < fit.estimates.size(); ++i)
        EXPECT_NEAR(fit.estimates[i].value / w["parameters"][i].get<double>(), 1, 2e-3)
            << name << " " << LawMethodName(fit.method) << " " << fit.estimates[i].name;
    }
  }
}

}  // namespace
}  // namespace allometry::analysis
