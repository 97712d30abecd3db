// Measures the trainer's data library on one core: tokenising beside SentencePiece's own program, and batches of every
// objective from a cold and a warm page cache.
//
//   bench_data --out FILE.json [--data DIR | --text FILE] [--vocabulary 2048] [--input-length 512] [--rounds 5]
//              [--spm-encode PROGRAM]
//
// --data: a prepared folder. --text: a text that is prepared first, into a temporary folder, as GCIDE is without
// either. Sides that are compared run in turn, in every round. Figures are medians of the rounds; rates are by the
// processor time of the thread that works, so that neighbours on the machine matter little, with wall-clock time beside
// it. From a cold cache the disk counts, and with it wall-clock time.
#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <sstream>
#include <string>

#include "common/clock.h"
#include "common/files.h"
#include "common/machine.h"
#include "common/sha256.h"
#include "common/version.h"
#include "worker/trainer/data/dataset.h"
#include "worker/trainer/data/format.h"
#include "worker/trainer/data/prepare.h"
#include "worker/trainer/data/pretrain_batches.h"

extern char** environ;

namespace allometry::trainer {
namespace {

namespace fs = std::filesystem;
using common::Json;

constexpr double kTokenizedBytes = 8e6;  // of text, for one round of tokenising
constexpr int64_t kRows = 128, kSteps = 100;

struct Options {
  std::string out, data, text, spm_encode;
  int64_t vocabulary = 2048, input_length = 512, rounds = 5;
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

Seconds Median(std::vector<Seconds> rounds) {
  const auto median = [&](double Seconds::*member) {
    std::ranges::sort(rounds, {}, member);
    return rounds[rounds.size() / 2].*member;
  };
  return {median(&Seconds::cpu), median(&Seconds::wall)};
}

Json Rate(const std::vector<Seconds>& rounds, double tokens, double bytes = 0) {
  const Seconds s = Median(rounds);
  Json json = {{"cpu_seconds", s.cpu},
               {"wall_seconds", s.wall},
               {"tokens", tokens},
               {"tokens_per_cpu_second", tokens / s.cpu},
               {"tokens_per_wall_second", tokens / s.wall}};
  if (bytes > 0) json["megabytes_per_cpu_second"] = bytes / s.cpu / 1e6;
  return json;
}

// ---- the text

common::Result<Json> PrepareRun(const Options& options, Json* execution) {
  const bool gcide = options.text.empty();
  std::vector<std::string> paths{options.text};
  if (gcide) paths = {"/usr/share/dictd/gcide.dict.dz", "/usr/share/dictd/gcide.index"};
  Json files = Json::array();
  for (const std::string& path : paths) {
    ALLO_ASSIGN_OR_RETURN(const std::string sha256, common::Sha256HexOfFile(path));
    (*execution)["files"][sha256] = path;
    files.push_back({{"name", fs::path(path).filename().string()}, {"sha256", sha256}});
  }
  return Json{{"kind", "prepare"},
              {"corpus", {{"format", gcide ? "gcide" : "text"}, {"files", files}}},
              {"tokenizer", {{"vocabulary", options.vocabulary}}}};
}

common::Status PrepareText(const Options& options, const fs::path& folder, Json* report) {
  Json execution = {{"files", Json::object()}};
  ALLO_ASSIGN_OR_RETURN(const Json run, PrepareRun(options, &execution));
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
  (*report)["prepare"] = {{"cpu_seconds", whole.cpu}, {"wall_seconds", whole.wall}, {"cpu_seconds_by_stage", stages}};
  return status;
}

// Training documents from all over the text, one a line.
std::vector<std::string> SampleTexts(const Dataset& data) {
  const int64_t documents = data.train().documents();
  const double bytes_per_token = 4;  // roughly; it only spreads the sample
  const double whole = static_cast<double>(data.train().tokens()) * bytes_per_token;
  const auto every = std::max<int64_t>(1, static_cast<int64_t>(whole / kTokenizedBytes));
  std::vector<std::string> texts;
  double bytes = 0;
  for (int64_t i = 0; i < documents && bytes < kTokenizedBytes; i += every) {
    texts.push_back(data.tokenizer().Decode(data.train().Document(i)));
    std::ranges::replace(texts.back(), '\n', ' ');
    bytes += static_cast<double>(texts.back().size());
  }
  return texts;
}

// ---- tokenising

// The program of that name, by PATH unless it is a path; empty if there is none.
std::string FindProgram(const std::string& name) {
  if (name.find('/') != std::string::npos) return ::access(name.c_str(), X_OK) == 0 ? name : "";
  const char* path = std::getenv("PATH");
  std::istringstream folders(path ? path : "");
  for (std::string folder; std::getline(folders, folder, ':');)
    if (const std::string file = folder + "/" + name; ::access(file.c_str(), X_OK) == 0) return file;
  return "";
}

// What one run of spm_encode costs, its start included.
std::optional<Seconds> RunSpmEncode(const std::string& program, const fs::path& model, const fs::path& in,
                                    const fs::path& out) {
  const std::string model_flag = "--model=" + model.string();
  std::vector<char*> argv;
  for (const char* argument : {program.c_str(), model_flag.c_str(), "--output_format=id"})
    argv.push_back(const_cast<char*>(argument));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, in.c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  pid_t pid = 0;
  int status = -1;
  rusage usage = {};
  const Seconds here = Measure([&] {
    if (::posix_spawn(&pid, program.c_str(), &actions, nullptr, argv.data(), environ) == 0)
      ::wait4(pid, &status, 0, &usage);
  });
  posix_spawn_file_actions_destroy(&actions);
  if (status != 0) return std::nullopt;
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return Seconds{seconds(usage.ru_utime) + seconds(usage.ru_stime), here.wall};
}

std::string IdsAsLines(const Tokenizer& tokenizer, const std::vector<std::string>& texts) {
  std::string lines;
  for (const std::string& text : texts) {
    const char* separator = "";
    for (int32_t id : tokenizer.Encode(text)) lines += separator + std::to_string(id), separator = " ";
    lines += '\n';
  }
  return lines;
}

class TokenizingBench {
 public:
  TokenizingBench(const Options& options, const Dataset& data, fs::path scratch)
      : rounds_(options.rounds),
        tokenizer_(data.tokenizer()),
        model_(data.folder() / kTokenizerFile),
        scratch_(std::move(scratch)),
        program_(FindProgram(options.spm_encode.empty() ? "spm_encode" : options.spm_encode)),
        texts_(SampleTexts(data)) {
    std::ofstream lines(scratch_ / "lines.txt", std::ios::binary), empty(scratch_ / "empty.txt");
    for (const std::string& text : texts_) {
      lines << text << '\n';
      bytes_ += static_cast<double>(text.size());
    }
  }

  Json Run() {
    std::vector<Seconds> ours, theirs;
    for (int64_t round = 0; round < rounds_; ++round) {
      ours.push_back(Measure([&] { Encode(); }));
      if (const auto seconds = SpmEncode()) theirs.push_back(*seconds);
    }
    Json json{{"allometry", Rate(ours, tokens_, bytes_)}, {"bytes", bytes_}};
    if (theirs.empty()) {
      json["spm_encode"] = {{"absent", program_.empty()
                                           ? "no spm_encode on PATH: install Debian's package sentencepiece, "
                                             "or name the program by --spm-encode"
                                           : program_ + " failed on this text and model"}};
      std::fprintf(stderr, "bench_data: %s\n", json["spm_encode"]["absent"].get<std::string>().c_str());
      return json;
    }
    json["spm_encode"] = Rate(theirs, tokens_, bytes_);
    json["spm_encode"]["same_ids"] = *common::ReadFile(scratch_ / "ids.txt") == IdsAsLines(tokenizer_, texts_);
    json["rate_against_spm_encode"] = Median(theirs).cpu / Median(ours).cpu;
    return json;
  }

 private:
  void Encode() {
    tokens_ = 0;
    std::vector<int32_t> ids;
    for (const std::string& text : texts_) {
      ids.clear();
      tokenizer_.Encode(text, &ids);
      tokens_ += static_cast<double>(ids.size());
    }
  }

  // Without its start: a run on nothing is subtracted.
  std::optional<Seconds> SpmEncode() const {
    if (program_.empty()) return std::nullopt;
    const auto start = RunSpmEncode(program_, model_, scratch_ / "empty.txt", "/dev/null");
    const auto whole = RunSpmEncode(program_, model_, scratch_ / "lines.txt", scratch_ / "ids.txt");
    if (!start || !whole) return std::nullopt;
    return Seconds{whole->cpu - start->cpu, whole->wall - start->wall};
  }

  int64_t rounds_;
  const Tokenizer& tokenizer_;
  fs::path model_, scratch_;
  std::string program_;
  std::vector<std::string> texts_;
  double bytes_ = 0, tokens_ = 0;
};

// ---- batches

// Calls use(descriptor, bytes) for every file of the folder that is not empty.
void ForEachFile(const fs::path& folder, const std::function<void(int, size_t)>& use) {
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file() || entry.file_size() == 0) continue;
    const int file = ::open(entry.path().c_str(), O_RDONLY);
    if (file < 0) continue;
    use(file, entry.file_size());
    ::close(file);
  }
}

// Takes a folder's files out of the page cache, as far as nothing has them mapped, or reads them into it.
void SetCache(const fs::path& folder, bool warm) {
  std::vector<char> buffer(1 << 20);
  ForEachFile(folder, [&](int file, size_t bytes) {
    if (warm) {
      while (::read(file, buffer.data(), buffer.size()) > 0) {
      }
      return;
    }
    ::fdatasync(file);  // pages that are not written yet would stay
    ::posix_fadvise(file, 0, static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
  });
}

// Share of a folder's pages that are in memory.
double ResidentShare(const fs::path& folder) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  double resident = 0, pages = 0;
  ForEachFile(folder, [&](int file, size_t bytes) {
    void* map = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, 0);
    if (map == MAP_FAILED) return;
    std::vector<unsigned char> in_memory((bytes + page - 1) / page);
    if (::mincore(map, bytes, in_memory.data()) == 0)
      resident += static_cast<double>(std::ranges::count_if(in_memory, [](unsigned char p) { return p & 1; }));
    pages += static_cast<double>(in_memory.size());
    ::munmap(map, bytes);
  });
  return pages > 0 ? resident / pages : 0;
}

// Steps that see no sequence twice, since a second reading would be warm.
int64_t StepsWithinAnEpoch(const PretrainBatches& batches) {
  double epochs = 0;
  for (const PartUse& use : batches.Use(kSteps)) epochs = std::max(epochs, use.epochs());
  return std::max<int64_t>(1, epochs > 1 ? static_cast<int64_t>(kSteps / epochs) : kSteps);
}

class BatchBench {
 public:
  BatchBench(const Options& options, fs::path folder) : options_(options), folder_(std::move(folder)) {}

  Json Run(const std::string& objective) {
    std::vector<Seconds> cold, warm;
    double resident = 0;
    for (int64_t round = 0; round < options_.rounds; ++round) {
      SetCache(folder_, false);
      resident = std::max(resident, ResidentShare(folder_));
      cold.push_back(FillBatches(objective));
      SetCache(folder_, true);
      warm.push_back(FillBatches(objective));
    }
    Json json{{"cold", Rate(cold, tokens_)}, {"warm", Rate(warm, tokens_)}};
    json["cold"]["resident_share_before"] = resident;
    return json;
  }

 private:
  // Opened anew each time: what is mapped cannot be dropped.
  Seconds FillBatches(const std::string& name) {
    const Dataset data = *Dataset::Open(folder_);
    const auto objective =
        *MakeObjective({.name = name, .input_length = options_.input_length}, data.tokenizer().pieces());
    const PretrainBatches batches = *PretrainBatches::Create(data.parts(), objective, Join::kEndMark, kRows, 1);
    const arch::ObjectiveLengths n = batches.lengths();
    const int64_t steps = StepsWithinAnEpoch(batches);
    std::vector<int64_t> inputs(static_cast<size_t>(kRows * n.inputs)), targets(static_cast<size_t>(kRows * n.targets));
    tokens_ = static_cast<double>(steps * kRows * n.raw);
    return Measure([&] {
      for (int64_t step = 0; step < steps; ++step)
        batches.Fill(step, 0, kRows, n.inputs, n.targets, inputs.data(), targets.data());
    });
  }

  const Options& options_;
  fs::path folder_;
  double tokens_ = 0;
};

common::Status MeasureAll(const Options& options, const fs::path& scratch, Json* report) {
  const fs::path folder = options.data.empty() ? scratch / "data" : fs::path(options.data);
  if (options.data.empty()) ALLO_RETURN_IF_ERROR(PrepareText(options, folder, report));
  {
    ALLO_ASSIGN_OR_RETURN(const Dataset data, Dataset::Open(folder));
    for (const char* member : {"text", "train"}) (*report)[member] = data.info().value(member, Json::object());
    (*report)["vocabulary"] = data.tokenizer().vocabulary();
    (*report)["tokenize"] = TokenizingBench(options, data, scratch).Run();
  }
  for (std::string_view objective : arch::ObjectiveNames())
    (*report)["batches"][std::string(objective)] = BatchBench(options, folder).Run(std::string(objective));
  return common::WriteFileAtomically(options.out, report->dump(2) + "\n");
}

common::Status Run(const Options& options) {
  std::string pattern = (fs::temp_directory_path() / "bench_data_XXXXXX").string();
  if (!::mkdtemp(pattern.data()))
    return common::PermissionDenied("cannot make a folder in " + fs::temp_directory_path().string());
  Json report = {{"bench", "data"},
                 {"date", common::FormatUtc(common::UnixMillis())},
                 {"commit", common::kCommit},
                 {"cpu", common::CpuModel()},
                 {"input_length", options.input_length},
                 {"rounds", options.rounds},
                 {"goal_batch_tokens_per_second", 5e6}};
  const common::Status status = MeasureAll(options, pattern, &report);
  std::error_code ignored;
  fs::remove_all(pattern, ignored);
  if (status) std::printf("%s\n", report.dump(2).c_str());
  return status;
}

bool Parse(int argc, char** argv, Options* options) {
  const std::map<std::string, std::function<void(const char*)>> known = {
      {"--out", [&](const char* v) { options->out = v; }},
      {"--data", [&](const char* v) { options->data = v; }},
      {"--text", [&](const char* v) { options->text = v; }},
      {"--spm-encode", [&](const char* v) { options->spm_encode = v; }},
      {"--vocabulary", [&](const char* v) { options->vocabulary = std::atoll(v); }},
      {"--rounds", [&](const char* v) { options->rounds = std::atoll(v); }},
      {"--input-length", [&](const char* v) { options->input_length = std::atoll(v); }}};
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!known.contains(argv[i])) return false;
    known.at(argv[i])(argv[i + 1]);
  }
  return argc % 2 == 1 && !options->out.empty() && options->rounds > 0 &&
         (options->data.empty() || options->text.empty());
}

}  // namespace
}  // namespace allometry::trainer

int main(int argc, char** argv) {
  allometry::trainer::Options options;
  if (!allometry::trainer::Parse(argc, argv, &options)) {
    std::fprintf(stderr,
                 "usage: bench_data --out FILE.json [--data DIR | --text FILE] [--vocabulary N] [--input-length N] "
                 "[--rounds N] [--spm-encode PROGRAM]\n");
    return 2;
  }
  const auto status = allometry::trainer::Run(options);
  if (!status) std::fprintf(stderr, "bench_data: %s\n", status.error().message.c_str());
  return status ? 0 : 1;
}
