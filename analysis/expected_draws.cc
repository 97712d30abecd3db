#include "analysis/expected_draws.h"

#include <algorithm>
#include <boost/random/chi_squared_distribution.hpp>
#include <boost/random/normal_distribution.hpp>
#include <cmath>
#include <limits>

#include "analysis/mean.h"

namespace allometry::analysis {
namespace {

// SplitMix64 (Steele, Lea and Flood 2014). Its state is one number, so beginning one costs nothing.
class SplitMix64 {
 public:
  using result_type = uint64_t;
  explicit SplitMix64(uint64_t state) : state_(state) {}
  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return std::numeric_limits<result_type>::max(); }
  result_type operator()() { return Mix(state_ += 0x9e3779b97f4a7c15u); }

  static uint64_t Mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_;
};

// The number is mixed before it is added: states that lie one step apart would give sequences one step apart.
SplitMix64 GeneratorOf(uint64_t seed, uint64_t number) {
  return SplitMix64(SplitMix64::Mix(SplitMix64::Mix(seed + 1) + number));
}

double DrawSd(const SeedSpread& spread, SplitMix64* generator) {
  if (spread.degrees <= 0) return spread.sd;
  boost::random::chi_squared_distribution<double> chi_squared(spread.degrees);
  return spread.sd * std::sqrt(spread.degrees / chi_squared(*generator));
}

}  // namespace

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

void ExpectedDraws::Draw(uint64_t number, std::span<const double> means, std::span<const double> errors,
                         std::span<double> drawn) const {
  SplitMix64 generator = GeneratorOf(seed_, number);
  const double sd = DrawSd(spread_, &generator);
  boost::random::normal_distribution<double> normal;
  for (size_t i = 0; i < means.size(); ++i) drawn[i] = means[i] + normal(generator) * sd * errors[i];
}

double ExpectedDraws::LargestSd(int draws) const {
  double largest = 0;
  for (int draw = 0; draw < draws; ++draw) {
    SplitMix64 generator = GeneratorOf(seed_, static_cast<uint64_t>(draw));
    largest = std::max(largest, DrawSd(spread_, &generator));
  }
  return largest;
}

}  // namespace allometry::analysis
