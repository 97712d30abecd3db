// Times the fits of L(N, D) = E + A/N^alpha + B/D^beta once, and prints the figures as JSON. laws.py runs it beside
// SciPy.
//
//   bench_laws POINTS [--threads 1] [--replicates 4000]
//
// POINTS: a text file of lines "N D loss".
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "analysis/laws.h"
#include "bench/analysis/measure.h"
#include "common/json.h"
#include "common/machine.h"
#include "common/version.h"

namespace allometry::analysis {
namespace {

using bench::Measure;
using common::Json;

struct Options {
  std::string points;
  int threads = 1, replicates = 4000;
};

std::vector<LawPoint> ReadPoints(const std::string& path) {
  std::ifstream in(path);
  std::vector<LawPoint> points;
  for (LawPoint p; in >> p.x >> p.tokens >> p.y;) points.push_back(p);
  return points;
}

// One estimator: the grid of starts, then the bootstrap from its optimum.
Json MeasureSolver(const LawSolver& solver, const Options& options) {
  std::vector<StartResult> starts;
  Json json;
  json["grid"] = Measure([&] { starts = solver.FitFromGrid(options.threads); });
  const StartResult& best = *std::ranges::min_element(starts, {}, &StartResult::objective);
  const Certificate certificate = Certify(solver, best.parameters, best.start, starts);
  json["grid"]["starts"] = starts.size();
  json["grid"]["starts_at_best"] = certificate.starts_at_best;
  json["grid"]["objective"] = best.objective;
  json["grid"]["parameters"] = best.parameters;
  json["bootstrap"] = Measure([&] { Bootstrap(solver, best.parameters, options.replicates, 1, options.threads); });
  json["bootstrap"]["replicates"] = options.replicates;
  return json;
}

int Run(const Options& options) {
  const std::vector<LawPoint> points = ReadPoints(options.points);
  if (const auto status = CheckLawPoints(LawForm::kParametersTokens, points); !status) {
    std::fprintf(stderr, "bench_laws: %s: %s\n", options.points.c_str(), status.error().message.c_str());
    return 1;
  }
  const Json report = {
      {"commit", common::kCommit},
      {"cpu", common::CpuModel()},
      {"points", points.size()},
      {"threads", options.threads},
      {"huber", MeasureSolver(*MakeHuberSolver(LawForm::kParametersTokens, points, LawOptions().delta), options)},
      {"variable_projection", MeasureSolver(*MakeProjectionSolver(LawForm::kParametersTokens, points), options)}};
  std::printf("%s\n", report.dump(2).c_str());
  return 0;
}

}  // namespace
}  // namespace allometry::analysis

int main(int argc, char** argv) {
  allometry::analysis::Options options;
  bool understood = argc % 2 == 0;
  if (argc > 1) options.points = argv[1];
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--threads")
      options.threads = std::atoi(argv[i + 1]);
    else if (name == "--replicates")
      options.replicates = std::atoi(argv[i + 1]);
    else
      understood = false;
  }
  if (!understood) {
    std::fprintf(stderr, "usage: bench_laws POINTS [--threads N] [--replicates N]\n");
    return 2;
  }
  return allometry::analysis::Run(options);
}
