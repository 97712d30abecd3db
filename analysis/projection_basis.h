#pragma once

#include "analysis/law_forms.h"
#include "analysis/projection_fit.h"

namespace allometry::analysis {

// A law as a separable problem: sizes as centred logarithms, losses (of kSigmoid and kExponential) centred; theta holds
// the logarithms of what is positive.
class LawProjection {
 public:
  LawProjection(LawForm form, std::span<const LawPoint> points);

  const ProjectionBasis& basis() const { return basis_; }
  const ProjectionPoints& points() const { return points_; }

  std::vector<double> Outer(const ThetaVector& theta, const std::array<double, kMostLinear>& linear) const;
  ThetaVector Theta(std::span<const double> parameters) const;  // inside the box
  // The law's parameters that theta k and coefficient j stand for.
  const std::string& ThetaName(int k) const;
  const std::string& LinearName(int j) const;

 private:
  LawForm form_;
  ProjectionBasis basis_;
  ProjectionPoints points_;
  double centre0_ = 0, centre1_ = 0;
};

}  // namespace allometry::analysis
