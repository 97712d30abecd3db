#include "arch/objective.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "common/json.h"

namespace allometry::arch {
namespace {

constexpr std::array<std::string_view, 3> kObjectives{"span_corruption", "prefix_lm", "bert"};
constexpr int64_t kShortestInputs = 4;

// std::nearbyint rounds halves to even in the default mode, as T5's data pipeline does.
int64_t RoundHalfToEven(double v) { return static_cast<int64_t>(std::nearbyint(v)); }

int64_t CountNoise(int64_t raw, double noise_density) {
  return std::clamp<int64_t>(RoundHalfToEven(static_cast<double>(raw) * noise_density), 1, raw - 1);
}

int64_t WantedSpans(int64_t noise, double mean_span_length) {
  return std::max<int64_t>(1, RoundHalfToEven(static_cast<double>(noise) / mean_span_length));
}

// Every span leaves one sentinel in the inputs and brings one into the targets; both end with the end mark.
ObjectiveLengths Corrupted(int64_t raw, const ObjectiveSettings& o) {
  const int64_t noise = CountNoise(raw, o.noise_density), spans = WantedSpans(noise, o.mean_span_length);
  return {raw, raw - noise + spans + 1, noise + spans + 1};
}

ObjectiveLengths SpanCorruptionLengths(const ObjectiveSettings& o) {
  ObjectiveLengths best = Corrupted(2, o);
  for (int64_t raw = 2;; ++raw) {
    const ObjectiveLengths next = Corrupted(raw, o);
    if (next.inputs > o.input_length) return best;
    best = next;
  }
}

common::Status OutOfRange(const char* name, double value, const std::string& allowed) {
  std::string number = common::Json(value).dump();
  if (value == std::floor(value) && std::abs(value) < 1e15) number = std::to_string(static_cast<int64_t>(value));
  return common::InvalidArgument(std::string(name) + " is " + number + ", and must " + allowed);
}

int64_t TargetLength(const ObjectiveSettings& o) { return o.target_length == 0 ? o.input_length : o.target_length; }

common::Status CheckSpans(const ObjectiveSettings& o) {
  if (!(o.mean_span_length >= 1)) return OutOfRange("mean_span_length", o.mean_span_length, "be at least 1");
  const int64_t raw = SpanCorruptionLengths(o).raw, noise = CountNoise(raw, o.noise_density);
  const int64_t spans = WantedSpans(noise, o.mean_span_length);
  if (spans > kSentinels)
    return common::InvalidArgument("span corruption of " + std::to_string(raw) + " tokens needs " +
                                   std::to_string(spans) + " spans, and there are " + std::to_string(kSentinels) +
                                   " sentinels: lower input_length or noise_density, or raise mean_span_length");
  if (raw - noise < spans)
    return common::InvalidArgument("noise_density " + common::Json(o.noise_density).dump() + " with spans of " +
                                   common::Json(o.mean_span_length).dump() +
                                   " leaves fewer unmasked tokens than spans: lower the density");
  return common::Ok();
}

}  // namespace

std::span<const std::string_view> ObjectiveNames() { return kObjectives; }

SpanCounts CountSpans(int64_t raw, double noise_density, double mean_span_length) {
  const int64_t noise = CountNoise(raw, noise_density);
  return {noise, std::min(WantedSpans(noise, mean_span_length), raw - noise)};
}

ObjectiveLengths LengthsOf(const ObjectiveSettings& o) {
  if (o.name == "prefix_lm") return {o.input_length - 1, o.input_length, TargetLength(o)};
  if (o.name == "bert") return {o.input_length - 1, o.input_length, o.input_length};
  return SpanCorruptionLengths(o);
}

common::Status CheckObjective(const ObjectiveSettings& o) {
  if (std::ranges::count(kObjectives, o.name) == 0) {
    std::string known;
    for (std::string_view name : kObjectives) known += " " + std::string(name);
    return common::InvalidArgument("there is no objective '" + o.name + "'; there are:" + known);
  }
  if (o.input_length < kShortestInputs)
    return OutOfRange("input_length", static_cast<double>(o.input_length), "be at least 4");
  if (o.name == "prefix_lm") {
    const int64_t targets = TargetLength(o);
    if (targets >= 2 && targets <= o.input_length) return common::Ok();
    return OutOfRange("target_length", static_cast<double>(targets),
                      "be from 2 to input_length, " + std::to_string(o.input_length) + ": no target is longer");
  }
  if (!(o.noise_density > 0 && o.noise_density < 1))
    return OutOfRange("noise_density", o.noise_density, "lie between 0 and 1");
  return o.name == "span_corruption" ? CheckSpans(o) : common::Ok();
}

}  // namespace allometry::arch
