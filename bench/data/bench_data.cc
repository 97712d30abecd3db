// Measures the trainer's data library on one core: tokenising, span corruption, whole batches.
//
//   bench_data --out FILE.json [--vocabulary 2048] [--input-length 512] [--dict FILE --index FILE]
//
// The text is GCIDE's. Every figure is the best of some repetitions, by the processor time of the process, one
// thread of which works, so that neighbours on the machine matter little; wall-clock time stands beside it.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "common/clock.h"
#include "common/files.h"
#include "common/machine.h"
#include "common/sha256.h"
#include "common/version.h"
#include "worker/trainer/data/batches.h"
#include "worker/trainer/data/dataset.h"
#include "worker/trainer/data/prepare.h"

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using common::Json;

constexpr int kRepetitions = 5;

struct Options {
  std::string out, dict = "/usr/share/dictd/gcide.dict.dz", index = "/usr/share/dictd/gcide.index";
  int64_t vocabulary = 2048, input_length = 512;
};

struct Seconds {
  double cpu = 0, wall = 0;
};

double CpuSeconds() {
  timespec t = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

Seconds Measure(const std::function<void()>& work) {
  const auto wall = std::chrono::steady_clock::now();
  const double cpu = CpuSeconds();
  work();
  return {CpuSeconds() - cpu, std::chrono::duration<double>(std::chrono::steady_clock::now() - wall).count()};
}

Seconds Best(const std::function<void()>& work) {
  Seconds best = Measure(work);
  for (int i = 1; i < kRepetitions; ++i) {
    const Seconds s = Measure(work);
    best = {std::min(best.cpu, s.cpu), std::min(best.wall, s.wall)};
  }
  return best;
}

Json Rate(const Seconds& s, double tokens, double bytes) {
  Json json = {{"cpu_seconds", s.cpu},
               {"wall_seconds", s.wall},
               {"tokens", tokens},
               {"tokens_per_cpu_second", tokens / s.cpu},
               {"tokens_per_wall_second", tokens / s.wall}};
  if (bytes > 0) json["megabytes_per_cpu_second"] = bytes / s.cpu / 1e6;
  return json;
}

common::Result<Dataset> PrepareGcide(const Options& options, const fs::path& folder, Json* report) {
  Json execution = {{"files", Json::object()}}, files = Json::array();
  for (const std::string& path : {options.dict, options.index}) {
    ALLO_ASSIGN_OR_RETURN(const std::string sha256, common::Sha256HexOfFile(path));
    execution["files"][sha256] = path;
    files.push_back({{"name", fs::path(path).filename().string()}, {"sha256", sha256}});
  }
  const Json run = {{"kind", "prepare"},
                    {"corpus", {{"format", "gcide"}, {"files", files}}},
                    {"tokenizer", {{"vocabulary", options.vocabulary}}}};
  // The callback comes at the beginning of each stage, on the thread that works.
  std::string stage = "begin";
  double began = CpuSeconds();
  Json stages = Json::object();
  const auto progress = [&](const PrepareProgress& p) {
    if (p.stage == stage) return true;
    stages[stage] = CpuSeconds() - began;
    began = CpuSeconds();
    stage = p.stage;
    return true;
  };
  common::Status status;
  const Seconds whole = Measure([&] { status = Prepare(run, execution, folder, progress); });
  ALLO_RETURN_IF_ERROR(status);
  (*report)["prepare"] = {{"cpu_seconds", whole.cpu}, {"wall_seconds", whole.wall}, {"cpu_seconds_by_stage", stages}};
  return Dataset::Open(folder);
}

Json MeasureTokenizing(const Dataset& data) {
  const Tokenizer& tokenizer = data.tokenizer();
  std::vector<std::string> texts;
  double bytes = 0, tokens = 0;
  for (int64_t i = 0; i < data.train().documents(); i += 10) {
    texts.push_back(tokenizer.Decode(data.train().Document(i)));
    bytes += static_cast<double>(texts.back().size());
  }
  const Seconds s = Best([&] {
    tokens = 0;
    std::vector<int32_t> ids;
    for (const std::string& text : texts) {
      ids.clear();
      tokenizer.Encode(text, &ids);
      tokens += static_cast<double>(ids.size());
    }
  });
  return Rate(s, tokens, bytes);
}

Json MeasureCorruption(const Dataset& data, int64_t input_length) {
  const SpanCorruption corruption = *SpanCorruption::Create(input_length, 0.15, 3.0, data.tokenizer().pieces());
  std::vector<int32_t> raw(static_cast<size_t>(corruption.lengths().raw)),
      inputs(static_cast<size_t>(corruption.lengths().inputs)),
      targets(static_cast<size_t>(corruption.lengths().targets));
  data.train().Read(0, raw);
  constexpr uint64_t kSequences = 20'000;
  const Seconds s = Best([&] {
    for (uint64_t i = 0; i < kSequences; ++i) corruption.Corrupt(raw, KeyedRandom(1, 2, i), inputs, targets);
  });
  return Rate(s, static_cast<double>(kSequences) * static_cast<double>(raw.size()), 0);
}

Json MeasureBatches(const Dataset& data, int64_t input_length) {
  constexpr int64_t kRows = 128, kSteps = 100;
  const PretrainBatches batches = *PretrainBatches::Create(data, input_length, 0.15, 3.0, kRows, 1);
  const arch::SpanCorruptionLengths n = batches.lengths();
  std::vector<int64_t> inputs(static_cast<size_t>(kRows * n.inputs)), targets(static_cast<size_t>(kRows * n.targets));
  int64_t step = 0;
  const Seconds s = Best([&] {
    for (int64_t i = 0; i < kSteps; ++i)
      batches.Fill(step++, 0, kRows, n.inputs, n.targets, inputs.data(), targets.data());
  });
  return Rate(s, static_cast<double>(kSteps * kRows * n.raw), 0);
}

common::Status Run(const Options& options) {
  std::string pattern = (fs::temp_directory_path() / "bench_data_XXXXXX").string();
  if (!::mkdtemp(pattern.data()))
    return common::PermissionDenied("cannot make a folder in " + fs::temp_directory_path().string());
  const fs::path folder = pattern;
  Json report = {{"bench", "data"},
                 {"date", common::FormatUtc(common::UnixMillis())},
                 {"commit", common::kCommit},
                 {"cpu", common::CpuModel()},
                 {"vocabulary", options.vocabulary},
                 {"input_length", options.input_length},
                 {"goal_batch_tokens_per_second", 5e6}};
  const auto measured = [&]() -> common::Status {
    ALLO_ASSIGN_OR_RETURN(const Dataset data, PrepareGcide(options, folder / "data", &report));
    report["text"] = data.info().at("text");
    report["train"] = data.info().at("train");
    report["tokenize"] = MeasureTokenizing(data);
    report["corrupt"] = MeasureCorruption(data, options.input_length);
    report["batches"] = MeasureBatches(data, options.input_length);
    return common::WriteFileAtomically(options.out, report.dump(2) + "\n");
  };
  const common::Status status = measured();
  std::error_code ignored;
  fs::remove_all(folder, ignored);
  if (status) std::printf("%s\n", report.dump(2).c_str());
  return status;
}

bool Parse(int argc, char** argv, Options* options) {
  const std::map<std::string, std::function<void(const char*)>> known = {
      {"--out", [&](const char* v) { options->out = v; }},
      {"--dict", [&](const char* v) { options->dict = v; }},
      {"--index", [&](const char* v) { options->index = v; }},
      {"--vocabulary", [&](const char* v) { options->vocabulary = std::atoll(v); }},
      {"--input-length", [&](const char* v) { options->input_length = std::atoll(v); }}};
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!known.contains(argv[i])) return false;
    known.at(argv[i])(argv[i + 1]);
  }
  return argc % 2 == 1 && !options->out.empty();
}

}  // namespace
}  // namespace allometry::trainer

int main(int argc, char** argv) {
  allometry::trainer::Options options;
  if (!allometry::trainer::Parse(argc, argv, &options)) {
    std::fprintf(stderr,
                 "usage: bench_data --out FILE.json [--vocabulary N] [--input-length N] [--dict FILE --index FILE]\n");
    return 2;
  }
  const auto status = allometry::trainer::Run(options);
  if (!status) std::fprintf(stderr, "bench_data: %s\n", status.error().message.c_str());
  return status ? 0 : 1;
}
