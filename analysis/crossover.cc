#include "analysis/crossover.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numbers>

#include "analysis/law_crossover.h"
#include "analysis/mean.h"
#include "analysis/root.h"
#include "common/ids.h"

namespace allometry::analysis {
namespace {

constexpr const char* kObserved = "observed";
constexpr const char* kExtrapolated = "extrapolated";
constexpr const char* kExtrapolatedByLaw = "extrapolated (law)";
constexpr const char* kUnbounded = "no bounded crossover";
constexpr const char* kNotShown = "no crossover shown";
constexpr const char* kRefused = "refused";

constexpr size_t kMostPairs = 10'000;
// Points at which two quadratics are compared between neighbouring crossings of their estimates.
constexpr int kGridPoints = 128;
// Doublings of a distance before an end counts as none.
constexpr int kMostDoublings = 400;

using Function = std::function<double(double)>;

// The first root on the way from `from` in steps that double; absent if f keeps its sign as far as doubles reach.
std::optional<double> RootBeyond(const Function& f, double from, double step) {
  const bool negative = f(from) < 0;
  double near = from;
  for (int i = 0; i < kMostDoublings; ++i, step *= 2) {
    const double far = from + step, value = f(far);
    if (!std::isfinite(value)) return std::nullopt;
    if ((value < 0) != negative) return RootBetween(f, near, far);
    near = far;
  }
  return std::nullopt;
}

std::pair<double, double> MeasuredRange(std::span<const SizeSamples> sizes) {
  std::vector<double> means;
  for (const SizeSamples& size : sizes) means.push_back(Mean(size.x));
  const auto [low, high] = std::ranges::minmax(means);
  return {low, high};
}

std::optional<std::pair<double, double>> CommonRange(std::span<const SizeSamples> a, std::span<const SizeSamples> b) {
  const auto [low_a, high_a] = MeasuredRange(a);
  const auto [low_b, high_b] = MeasuredRange(b);
  const double low = std::max(low_a, low_b), high = std::min(high_a, high_b);
  if (low >= high) return std::nullopt;
  return std::pair(low, high);
}

// D(x) and the set that cannot be told from zero.
class PairOfCurves {
 public:
  PairOfCurves(SizeCurve first, SizeCurve second, double confidence)
      : first_(std::move(first)), second_(std::move(second)), confidence_(confidence) {}

  CurveValue At(double x) const { return Minus(first_.At(x), second_.At(x)); }
  double Difference(double x) const { return first_.At(x).value - second_.At(x).value; }

  // Negative where |D| < t se(D).
  double Margin(double x) const {
    const CurveValue d = At(x);
    if (d.variance <= 0 || d.degrees <= 0) return std::abs(d.value);
    return std::abs(d.value) - Quantile(d.degrees) * std::sqrt(d.variance);
  }

  const char* Ahead(double x) const { return Difference(x) > 0 ? "first" : "second"; }

 private:
  // Over equal grids the degrees of freedom are the same at every x, and their quantile is most of the work.
  double Quantile(double degrees) const {
    if (std::abs(degrees - last_degrees_) > 1e-10 * degrees) {
      last_degrees_ = degrees;
      last_quantile_ = TQuantile(confidence_, degrees);
    }
    return last_quantile_;
  }

  SizeCurve first_, second_;
  double confidence_;
  mutable double last_degrees_ = 0, last_quantile_ = 0;
};

// Of two lines, D = d0 + d1 u and var D = v0 + 2 v1 u + v2 u^2 with u = (x - centre) / step, from values at three x.
struct DifferenceOfLines {
  double centre, step;
  double d0, d1, v0, v1, v2;

  DifferenceOfLines(const PairOfCurves& pair, double centre_x, double step_x) : centre(centre_x), step(step_x) {
    const CurveValue low = pair.At(centre - step), middle = pair.At(centre), high = pair.At(centre + step);
    d0 = middle.value;
    d1 = (high.value - low.value) / 2;
    v0 = middle.variance;
    v1 = (high.variance - low.variance) / 4;
    v2 = (high.variance + low.variance) / 2 - middle.variance;
  }

  double Crossing() const { return centre - step * d0 / d1; }
  // Where D^2 / var D is largest: (1, u) is then proportional to V^-1 (d0, d1).
  double ClearestX() const { return centre + step * (v0 * d1 - v1 * d0) / (v2 * d0 - v1 * d1); }
};

// The sides of a single bounded band, and whether it was measured.
void DescribeInterval(const PairOfCurves& pair, Crossover* out) {
  const CrossoverBand& band = out->bands.front();
  const double width = std::max(*band.high - *band.low, 1e-9 * std::abs(*band.high));
  out->ahead_below = pair.Ahead(*band.low - 1e-6 * width);
  out->ahead_above = pair.Ahead(*band.high + 1e-6 * width);
  const bool inside =
      out->common_range && *band.low >= out->common_range->first && *band.high <= out->common_range->second;
  out->verdict = inside ? kObserved : kExtrapolated;
}

void AddUnboundedSet(const PairOfCurves& pair, const DifferenceOfLines& lines, Crossover* out) {
  const Function margin = [&](double x) { return pair.Margin(x); };
  out->verdict = kUnbounded;
  out->reason = "the slopes cannot be told apart, so the lines may cross anywhere, far below or far above";
  const double clearest = lines.ClearestX();
  if (std::isfinite(clearest) && margin(clearest) > 0) {
    const auto low = RootBeyond(margin, clearest, -lines.step), high = RootBeyond(margin, clearest, lines.step);
    if (low) out->bands.push_back({std::nullopt, low});
    if (high) out->bands.push_back({high, std::nullopt});
    out->reason = "the slopes cannot be told apart: the lines differ between the two rays, and may cross on either";
  }
  if (out->bands.empty()) out->bands.push_back({});
}

void CrossLines(const PairOfCurves& pair, std::span<const SizeSamples> first, std::span<const SizeSamples> second,
                bool slopes_differ, Crossover* out) {
  const auto [low_1, high_1] = MeasuredRange(first);
  const auto [low_2, high_2] = MeasuredRange(second);
  const double low = std::min(low_1, low_2), high = std::max(high_1, high_2);
  const DifferenceOfLines lines(pair, (low + high) / 2, (high - low) / 2);
  if (!slopes_differ) return AddUnboundedSet(pair, lines, out);
  const Function margin = [&](double x) { return pair.Margin(x); };
  const double at = lines.Crossing();
  const auto from = RootBeyond(margin, at, -lines.step), to = RootBeyond(margin, at, lines.step);
  if (!from || !to) return AddUnboundedSet(pair, lines, out);
  out->at = {at};
  out->bands = {{from, to}};
  DescribeInterval(pair, out);
  if (out->verdict == kExtrapolated)
    out->reason = "the band is not inside both measured ranges: it holds if the lines go on straight";
}

// Where f changes its sign on a grid over the range.
std::vector<double> SignChanges(const Function& f, std::pair<double, double> range) {
  std::vector<double> roots;
  double left = range.first, at_left = f(left);
  for (int i = 1; i <= kGridPoints; ++i) {
    const double right = range.first + (range.second - range.first) * i / kGridPoints, at_right = f(right);
    if ((at_left < 0) != (at_right < 0)) roots.push_back(RootBetween(f, left, right));
    left = right;
    at_left = at_right;
  }
  return roots;
}

// Each crossing of the estimates lies in a band, however narrow, so the grid begins anew at each.
std::vector<CrossoverBand> BandsInside(const Function& margin, const std::vector<double>& crossings,
                                       std::pair<double, double> range) {
  std::vector<double> ends{range.first};
  ends.insert(ends.end(), crossings.begin(), crossings.end());
  ends.push_back(range.second);
  std::vector<CrossoverBand> bands;
  bool inside = margin(range.first) < 0;
  if (inside) bands.push_back({});
  for (size_t i = 0; i + 1 < ends.size(); ++i) {
    for (const double root : SignChanges(margin, {ends[i], ends[i + 1]})) {
      if (inside) {
        bands.back().high = root;
      } else {
        bands.push_back({root, std::nullopt});
      }
      inside = !inside;
    }
  }
  return bands;
}

bool Holds(const CrossoverBand& band, double x) { return band.low && band.high && *band.low <= x && x <= *band.high; }

void JudgeCurves(const PairOfCurves& pair, Crossover* out) {
  const bool open = std::ranges::any_of(out->bands, [](const CrossoverBand& b) { return !b.low || !b.high; });
  const bool crossing = std::ranges::any_of(out->bands, [&](const CrossoverBand& b) {
    return std::ranges::any_of(out->at, [&](double x) { return Holds(b, x); });
  });
  if (out->bands.empty()) {
    out->verdict = kRefused;
    out->reason = std::string("curved, and the curves do not meet inside the common range, where the ") +
                  pair.Ahead(out->common_range->first) +
                  " is ahead throughout: a crossing elsewhere would be extrapolated from curved lines";
  } else if (crossing) {
    out->verdict = kObserved;
    if (out->bands.size() == 1) DescribeInterval(pair, out);
  } else if (open) {
    out->verdict = kUnbounded;
    out->reason = "curved, and the band reaches an end of the common range, beyond which nothing is extrapolated";
  } else {
    out->verdict = kNotShown;
    out->reason = "the curves come within each other's uncertainty, and their estimates do not cross there";
  }
}

// Quadratics where three sizes allow one.
std::optional<SizeCurve> CurveThrough(std::span<const SizeSamples> sizes) {
  std::optional<SizeCurve> curve = SizeCurve::Fit(sizes, 2, VarianceBasis::kSeeds);
  return curve ? curve : SizeCurve::Fit(sizes, 1, VarianceBasis::kSeeds);
}

Crossover RefuseCrossover(Crossover out, const std::string& reason) {
  out.verdict = kRefused;
  out.reason = reason;
  return out;
}

Crossover CrossCurves(std::span<const SizeSamples> first, std::span<const SizeSamples> second, double confidence,
                      Crossover out) {
  out.curved = true;
  if (!out.common_range)
    return RefuseCrossover(out,
                           "curved, and the measured ranges do not overlap: a crossing would be extrapolated "
                           "from curved lines");
  std::optional<SizeCurve> one = CurveThrough(first), two = CurveThrough(second);
  if (!one || !two) return RefuseCrossover(out, "curved, and the other has no replicates: run a second seed of it");
  const PairOfCurves pair(*std::move(one), *std::move(two), confidence);
  out.at = SignChanges([&](double x) { return pair.Difference(x); }, *out.common_range);
  out.bands = BandsInside([&](double x) { return pair.Margin(x); }, out.at, *out.common_range);
  JudgeCurves(pair, &out);
  return out;
}

std::string WhyNoLine(const SlopeEstimate& first, const SlopeEstimate& second) {
  if (!first.alpha) return "the slope of the first is refused: " + first.refused;
  if (!second.alpha) return "the slope of the second is refused: " + second.refused;
  const bool seeds = first.seed_interval && second.seed_interval;
  const bool sizes = first.line_interval && second.line_interval;
  if (seeds || sizes) return "";
  return "the two slopes have no interval of one kind: it takes replicates of both, or three sizes of both";
}

}  // namespace

Crossover FindCrossover(std::span<const SizeSamples> first, std::span<const SizeSamples> second, double confidence) {
  Crossover out;
  const SlopeEstimate one = EstimateSlope(first, confidence), two = EstimateSlope(second, confidence);
  const std::string why_not = WhyNoLine(one, two);
  if (!why_not.empty()) return RefuseCrossover(out, why_not);
  out.common_range = CommonRange(first, second);
  if (one.HasFlag("curved") || two.HasFlag("curved")) return CrossCurves(first, second, confidence, out);
  const bool seeds = one.seed_interval && two.seed_interval;
  out.basis = seeds ? VarianceBasis::kSeeds : VarianceBasis::kSizes;
  std::optional<SizeCurve> line_1 = SizeCurve::Fit(first, 1, out.basis), line_2 = SizeCurve::Fit(second, 1, out.basis);
  if (!line_1 || !line_2) return RefuseCrossover(out, "the sizes determine no line");
  const SlopeDifference slopes = seeds ? Difference(one, two, confidence) : LineDifference(one, two, confidence);
  const PairOfCurves pair(*std::move(line_1), *std::move(line_2), confidence);
  CrossLines(pair, first, second, slopes.interval && slopes.p_value < 1 - confidence, &out);
  return out;
}

namespace {

using ArchitecturePair = std::pair<const ArchitectureSlopes*, const ArchitectureSlopes*>;

common::Result<const ArchitectureSlopes*> ArchitectureNamed(const SlopesResult& slopes, const std::string& name) {
  std::vector<std::string> names;
  for (const ArchitectureSlopes& a : slopes.architectures) {
    if (a.architecture == name) return &a;
    names.push_back(a.architecture);
  }
  const std::string near = common::NearestName(name, names);
  return common::NotFound("crossover: no finished cell has the architecture '" + name + "'" +
                          (near.empty() ? "" : " (did you mean '" + near + "'?)"));
}

common::Result<std::vector<ArchitecturePair>> WantedPairs(const SlopesResult& slopes,
                                                          const CrossoversRequest& request) {
  std::vector<ArchitecturePair> pairs;
  const std::vector<ArchitectureSlopes>& all = slopes.architectures;
  if (all.size() < 2)
    return common::FailedPrecondition("a crossover needs two architectures, and there is " + all.front().architecture +
                                      " alone");
  if (!request.second.empty() && request.first.empty())
    return common::InvalidArgument("crossover: name the first architecture too, or the first alone");
  if (request.first.empty()) {
    if (all.size() * (all.size() - 1) / 2 > kMostPairs)
      return common::InvalidArgument("crossover: " + std::to_string(all.size()) + " architectures have more than " +
                                     std::to_string(kMostPairs) + " pairs: name one of them, or filter");
    for (size_t i = 0; i < all.size(); ++i) {
      for (size_t j = i + 1; j < all.size(); ++j) pairs.emplace_back(&all[i], &all[j]);
    }
    return pairs;
  }
  ALLO_ASSIGN_OR_RETURN(const ArchitectureSlopes* first, ArchitectureNamed(slopes, request.first));
  if (request.second.empty()) {
    for (const ArchitectureSlopes& other : all) {
      if (&other != first) pairs.emplace_back(first, &other);
    }
    return pairs;
  }
  ALLO_ASSIGN_OR_RETURN(const ArchitectureSlopes* second, ArchitectureNamed(slopes, request.second));
  if (first == second) return common::InvalidArgument("crossover: an architecture does not cross itself");
  pairs.emplace_back(first, second);
  return pairs;
}

// Why the two slopes cannot be held against each other; the estimate itself says the rest.
std::string WhyNoCrossover(const Slope& first, const Slope& second) {
  for (const Slope* slope : {&first, &second}) {
    if (!slope->estimate.refused.empty() && !slope->estimate.alpha)
      return std::string("the slope of the ") + (slope == &first ? "first" : "second") +
             " is refused: " + slope->estimate.refused;
  }
  if (first.x == Axis::kSeconds && first.devices != second.devices)
    return "times on unlike devices cannot be compared: " + first.devices + " and " + second.devices;
  return "";
}

void NameSides(Crossover* crossover) {
  for (std::string* side : {&crossover->ahead_below, &crossover->ahead_above}) {
    if (!side->empty()) *side = *side == "first" ? crossover->first : crossover->second;
  }
}

bool HasLaws(const AxisPair& axes) {
  return axes.y == Axis::kUpstream && (axes.x == Axis::kFlops || axes.x == Axis::kParameters);
}

// Asks the laws where curved lines refuse an answer. Each architecture's law is fitted once, when a pair first needs
// it.
class LawsOfStudy {
 public:
  LawsOfStudy(const SlopesResult& slopes, const CrossoversRequest& request) : slopes_(slopes), request_(request) {}

  void Ask(const ArchitecturePair& pair, Crossover* out) {
    if (!out->curved || out->verdict != kRefused || !HasLaws(request_.axes)) return;
    const ArchitectureLaw &first = LawOf(*pair.first), &second = LawOf(*pair.second);
    if (first.fit && second.fit) return Cross(*first.fit, *second.fit, pair, out);
    const bool at_first = !first.fit;
    out->reason += "; nor is there a law of " + (at_first ? pair.first : pair.second)->architecture + ": " +
                   (at_first ? first : second).refused;
  }

 private:
  const ArchitectureLaw& LawOf(const ArchitectureSlopes& architecture) {
    const auto [law, is_new] = laws_.try_emplace(&architecture);
    if (is_new)
      law->second = FitArchitectureLaw(FindSlope(architecture, request_.axes.x, request_.axes.y)->samples,
                                       request_.slopes.transform,
                                       1 + static_cast<uint64_t>(&architecture - slopes_.architectures.data()));
    return law->second;
  }

  // The crossing at larger costs, if there is one, else that at smaller ones.
  void Cross(const LawFit& first, const LawFit& second, const ArchitecturePair& pair, Crossover* out) const {
    const double from = StartOf(pair) * Unit(), confidence = request_.slopes.confidence;
    auto crossing = CrossLaws(first, second, from, true, confidence);
    if (!crossing) crossing = CrossLaws(first, second, from, false, confidence);
    if (!crossing) {
      out->reason += "; nor do the laws of both cross";
    } else if (const double x = crossing->at / Unit();
               out->common_range && out->common_range->first <= x && x <= out->common_range->second) {
      out->reason += "; the laws of both cross inside that range, so curves and laws disagree";
    } else {
      out->laws = std::pair(first.Parameters(), second.Parameters());
      Fill(*crossing, out);
    }
  }

  // The middle of what both measured, where the curves do not cross; without that the beginning of the gap between.
  double StartOf(const ArchitecturePair& pair) const {
    const auto range_1 = MeasuredRange(FindSlope(*pair.first, request_.axes.x, request_.axes.y)->samples);
    const auto range_2 = MeasuredRange(FindSlope(*pair.second, request_.axes.x, request_.axes.y)->samples);
    const double low = std::max(range_1.first, range_2.first), high = std::min(range_1.second, range_2.second);
    return low < high ? (low + high) / 2 : high;
  }

  void Fill(const LawCrossing& crossing, Crossover* out) const {
    out->basis = VarianceBasis::kRuns;
    CrossoverBand& band = out->bands.emplace_back();
    if (crossing.low) band.low = *crossing.low / Unit();
    if (crossing.high) band.high = *crossing.high / Unit();
    if (!band.low || !band.high) {
      out->verdict = kUnbounded;
      out->reason = "the laws of both cross, but not in " + std::to_string(std::lround(100 * crossing.no_crossing)) +
                    " % of the replicates";
      return;
    }
    out->verdict = kExtrapolatedByLaw;
    out->reason = "curved, and the curves do not meet in what both measured: it holds if both go on as E + A/C^alpha";
    out->at = {crossing.at / Unit()};
    NameAhead(crossing.at, out);
  }

  // The lower loss is ahead. So near to the crossing there is no second one.
  void NameAhead(double at, Crossover* out) const {
    const auto ahead = [&](double log_c) {
      const double c = std::exp(log_c);
      const double first = EvaluateLaw(LawForm::kCompute, out->laws->first, c, 0);
      return first < EvaluateLaw(LawForm::kCompute, out->laws->second, c, 0) ? "first" : "second";
    };
    out->ahead_below = ahead(at - 0.01);
    out->ahead_above = ahead(at + 0.01);
  }

  // ln C for one unit of the slopes' x.
  double Unit() const { return request_.slopes.transform == Transform::kLoglog ? 1.0 : std::numbers::ln10; }

  const SlopesResult& slopes_;
  const CrossoversRequest& request_;
  std::map<const ArchitectureSlopes*, ArchitectureLaw> laws_;
};

Crossover CrossoverOf(const ArchitecturePair& pair, const CrossoversRequest& request, LawsOfStudy* laws) {
  const Slope& first = *FindSlope(*pair.first, request.axes.x, request.axes.y);
  const Slope& second = *FindSlope(*pair.second, request.axes.x, request.axes.y);
  const std::string why_not = WhyNoCrossover(first, second);
  Crossover out = why_not.empty() ? FindCrossover(first.samples, second.samples, request.slopes.confidence)
                                  : RefuseCrossover({}, why_not);
  laws->Ask(pair, &out);
  out.first = pair.first->architecture;
  out.second = pair.second->architecture;
  NameSides(&out);
  return out;
}

}  // namespace

common::Result<CrossoversResult> Crossovers(const records::Table& table, const CrossoversRequest& wanted) {
  CrossoversRequest request = wanted;
  request.slopes.baseline.clear();
  ALLO_ASSIGN_OR_RETURN(const SlopesResult slopes, Slopes(table, request.slopes));
  ALLO_ASSIGN_OR_RETURN(const auto pairs, WantedPairs(slopes, request));
  CrossoversResult result{request, slopes.downstream, {}, LeftOutOfAxes(slopes.left_out, request.axes)};
  LawsOfStudy laws(slopes, request);
  for (const ArchitecturePair& pair : pairs) result.crossovers.push_back(CrossoverOf(pair, request, &laws));
  return result;
}

}  // namespace allometry::analysis
