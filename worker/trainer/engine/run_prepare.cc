#include <chrono>
#include <functional>

#include "worker/trainer/data/dataset.h"
#include "worker/trainer/data/prepare.h"
#include "worker/trainer/engine/device.h"
#include "worker/trainer/engine/run_kinds.h"
#include "worker/trainer/engine/stop_signal.h"

namespace allometry::trainer {
namespace {

using common::Json;
using Clock = std::chrono::steady_clock;

constexpr double kPrepareProgressSeconds = 0.5;
constexpr size_t kLargestReport = 500'000;  // bytes; an event may have 1 MiB

// What the data library reads of `execution`.
Json ExecutionForData(const Execution& execution) {
  Json files = Json::object();
  for (const auto& [sha256, path] : execution.files) files[sha256] = path.string();
  Json json{{"files", files}, {"threads", execution.threads}};
  if (const auto data = execution.inputs.find("data"); data != execution.inputs.end())
    json["data"] = data->second.string();
  return json;
}

int64_t TokensOf(const Dataset& data, const char* side) {
  return data.info().value(side, Json::object()).value("tokens", int64_t{0});
}

// Sends at most a few progress events a second, and asks for a stop when a signal came.
class ProgressReporter {
 public:
  explicit ProgressReporter(EventWriter& events) : events_(events) {}

  bool operator()(const PrepareProgress& progress) {
    const auto now = Clock::now();
    if (progress.stage != stage_ || std::chrono::duration<double>(now - last_).count() >= kPrepareProgressSeconds) {
      stage_ = progress.stage;
      last_ = now;
      auto written = events_.Write(
          {{"event", "progress"}, {"stage", progress.stage}, {"step", progress.done}, {"steps", progress.total}});
      if (!written) failure_ = written.error().message;
    }
    // SentencePiece trains for minutes on a large text and cannot be interrupted; the next attempt starts anew anyway.
    SetStopAtOnce(progress.stage == kTrainTokenizerStage);
    return !StopRequested() && failure_.empty();
  }
  const std::string& failure() const { return failure_; }

 private:
  EventWriter& events_;
  std::string stage_, failure_;
  Clock::time_point last_;
};

}  // namespace

Ending RunPrepare(const RunContext& context) {
  const Execution& execution = context.config.execution;
  const auto start = Clock::now();
  auto written = context.events.Write({{"event", "start"},
                                       {"device", "cpu"},
                                       {"precision", "fp32"},
                                       {"resumed_step", 0},
                                       {"provenance", Provenance("cpu", execution.threads)}});
  if (!written) return {ExitCode::kCrash, written.error().message};
  const std::filesystem::path output = context.run_directory / "data";
  ProgressReporter reporter(context.events);
  auto prepared = Prepare(context.config.run, ExecutionForData(execution), output, std::ref(reporter));
  if (!reporter.failure().empty()) return {ExitCode::kCrash, reporter.failure()};
  if (!prepared) return {ExitCodeOfDataError(prepared.error()), prepared.error().message};
  auto data = Dataset::Open(output);
  if (!data) return {ExitCodeOfDataError(data.error()), data.error().message};
  const std::map<std::string, double> metrics{
      {"train_tokens", static_cast<double>(TokensOf(*data, "train"))},
      {"validation_tokens", static_cast<double>(TokensOf(*data, "valid"))},
      {"device_seconds", std::chrono::duration<double>(Clock::now() - start).count()},
      {"peak_memory_bytes", static_cast<double>(PeakMemoryBytes(at::kCPU))}};
  const bool small = data->info().dump().size() < kLargestReport;
  return WriteResult(context, metrics, Json::array(), {{"data", "data"}}, small ? data->info() : Json::object());
}

}  // namespace allometry::trainer
