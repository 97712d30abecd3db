#include "analysis/law_forms.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

#include "analysis/number_range.h"

namespace allometry::analysis {
namespace {

struct FormEntry {
  LawForm form;
  const char* name;
  std::vector<std::string> parameters;
};

const std::vector<FormEntry>& Forms() {
  static const std::vector<FormEntry> forms = {
      {LawForm::kParametersTokens, "parameters_tokens", {"E", "A", "B", "alpha", "beta"}},
      {LawForm::kTied, "tied", {"E", "A", "B", "alpha"}},
      {LawForm::kCompute, "compute", {"E", "A", "alpha"}},
      {LawForm::kBroken, "broken", {"a", "b", "c0", "c1", "d", "f"}},
      {LawForm::kSigmoid, "sigmoid", {"b", "a", "k", "L0"}},
      {LawForm::kExponential, "exponential", {"eps", "k", "gamma"}}};
  return forms;
}

const FormEntry& EntryOf(LawForm form) { return *std::ranges::find(Forms(), form, &FormEntry::form); }

double SoftPlus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }

common::Status CheckPoint(LawForm form, const LawPoint& point, size_t index) {
  const auto refuse = [&](const char* what, double value, const char* wanted) {
    return common::InvalidArgument("point " + std::to_string(index + 1) + ": " + what + " is " + std::to_string(value) +
                                   ", and must be " + wanted);
  };
  const auto positive = [](double value) { return value >= kLeastNumber && value <= kMostNumber; };
  if (!positive(point.x))
    return refuse(PredictsLoss(form) ? "the size" : "the loss", point.x, "positive, from 1e-60 to 1e60");
  if (HasTokens(form) && !positive(point.tokens)) return refuse("tokens", point.tokens, "positive, from 1e-60 to 1e60");
  if (PredictsLoss(form) && !positive(point.y)) return refuse("the loss", point.y, "positive, from 1e-60 to 1e60");
  if (!PredictsLoss(form) && !(point.y >= 0 && point.y <= 1)) return refuse("the score", point.y, "from 0 to 1");
  return common::Ok();
}

}  // namespace

const char* LawFormName(LawForm form) { return EntryOf(form).name; }

common::Result<LawForm> ParseLawForm(std::string_view name) {
  std::string known;
  for (const FormEntry& entry : Forms()) {
    if (entry.name == name) return entry.form;
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  return common::InvalidArgument("unknown law '" + std::string(name) + "'; known are " + known);
}

const std::vector<std::string>& LawParameterNames(LawForm form) { return EntryOf(form).parameters; }

bool HasTokens(LawForm form) { return form == LawForm::kParametersTokens || form == LawForm::kTied; }

bool PredictsLoss(LawForm form) { return form != LawForm::kSigmoid && form != LawForm::kExponential; }

double EvaluateLaw(LawForm form, std::span<const double> p, double x, double tokens) {
  switch (form) {
    case LawForm::kParametersTokens:
      return p[0] + p[1] * std::pow(x, -p[3]) + p[2] * std::pow(tokens, -p[4]);
    case LawForm::kTied:
      return p[0] + p[1] * std::pow(x, -p[3]) + p[2] * std::pow(tokens, -p[3]);
    case LawForm::kCompute:
      return p[0] + p[1] * std::pow(x, -p[2]);
    case LawForm::kBroken:
      return p[0] + p[1] * std::exp(-p[2] * std::log(x) - p[3] * p[5] * SoftPlus(std::log(x / p[4]) / p[5]));
    case LawForm::kSigmoid:
      return p[0] + p[1] / (1 + std::exp(p[2] * (x - p[3])));
    case LawForm::kExponential:
      return p[0] - p[1] * std::exp(-p[2] * x);
  }
  return NAN;
}

common::Status CheckLawPoints(LawForm form, std::span<const LawPoint> points) {
  std::set<std::tuple<double, double>> sizes;
  std::set<double> first, second;
  for (size_t i = 0; i < points.size(); ++i) {
    ALLO_RETURN_IF_ERROR(CheckPoint(form, points[i], i));
    const double tokens = HasTokens(form) ? points[i].tokens : 0;
    sizes.insert({points[i].x, tokens});
    first.insert(points[i].x), second.insert(tokens);
  }
  const size_t needed = LawParameterNames(form).size() + 1;
  if (sizes.size() < needed)
    return common::InvalidArgument("the law '" + std::string(LawFormName(form)) + "' needs " + std::to_string(needed) +
                                   " points at different sizes, and there are " + std::to_string(sizes.size()));
  if (first.size() < 2) return common::InvalidArgument("all points have the same size");
  if (HasTokens(form) && second.size() < 2) return common::InvalidArgument("all points have the same tokens");
  return common::Ok();
}

}  // namespace allometry::analysis
