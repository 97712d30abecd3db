#include <sys/vfs.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <thread>

#include "cli/client.h"
#include "cli/output.h"
#include "cli/trainers.h"
#include "cli/verb.h"
#include "common/json.h"
#include "common/program_output.h"
#include "common/version.h"
#include "coordinator/grid/known_tasks.h"
#include "coordinator/store/database.h"

namespace allometry::cli::verb_doctor {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> trainers;
  std::string data_dir;
  OutputOptions output;
};

// One thing looked at. `needed`: without it allo run on this machine cannot work.
struct Finding {
  std::string check;
  bool ok = true;
  bool needed = true;
  std::string detail;
};

Finding Build() {
  return {"build", true, true,
          std::string(common::kVersion) + ", commit " + common::kCommit + ", " + common::kBuildType + ", " +
              common::kCompiler};
}

Finding Processors() {
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGE_SIZE);
  return {"machine", true, true,
          std::to_string(std::thread::hardware_concurrency()) + " processors, " +
              common::FormatQuantity(static_cast<double>(pages) * static_cast<double>(page)) + "B of memory"};
}

// "cpu, cuda:0 NVIDIA H200" of what --probe prints; what is no such report (an error message) as it stands.
std::string DevicesIn(const std::string& probe) {
  const auto report = common::ParseJson(probe, "--probe");
  if (!report || !report->is_object() || !report->contains("devices"))
    return probe.empty() ? "--probe prints nothing" : probe.substr(0, probe.find_last_not_of('\n') + 1);
  std::string devices;
  for (const auto& device : (*report)["devices"]) {
    const std::string name = device.value("device", "");
    devices += (devices.empty() ? "" : ", ") + name + (name == "cpu" ? "" : " " + device.value("name", ""));
    if (const std::string fault = device.value("fault", ""); !fault.empty()) devices += " (" + fault + ")";
  }
  return devices;
}

Finding BuiltinTrainer(const Trainers& trainers) {
  const auto found = trainers.find("builtin");
  if (found == trainers.end())
    return {"allo-trainer", false, true,
            "not beside allo in " + ProgramFolder().string() + ": build it (needs LibTorch: deploy/install-deps.sh)"};
  std::vector<std::string> command = found->second;
  command.emplace_back("--probe");
  const common::ProgramOutput probe = common::RunAndRead(command, /*errors_too=*/true);
  return {"allo-trainer", probe.exit_code == 0, true, DevicesIn(probe.text)};
}

Finding Known(const coordinator::KnownData& known) {
  for (std::string_view file : known.layouts.front())
    if (std::error_code ignored; !fs::exists(fs::path(known.folder) / file, ignored))
      return {std::string(known.name), false, false, "apt-get install " + std::string(known.package)};
  return {std::string(known.name), true, false, std::string(known.folder)};
}

Finding DataDirectory(const std::string& data_dir) {
  fs::path existing = fs::absolute(data_dir);
  std::error_code error;
  while (!fs::exists(existing, error) && existing.has_parent_path() && existing != existing.parent_path())
    existing = existing.parent_path();
  if (access(existing.c_str(), W_OK) != 0)
    return {"data directory", false, true, existing.string() + " is not writable: give another with --data"};
  struct statfs system {};
  if (statfs(existing.c_str(), &system) == 0 && coordinator::store::IsNetworkFileSystem(system.f_type))
    return {"data directory", false, true, data_dir + " is on a network file system: give a local one with --data"};
  const fs::space_info space = fs::space(existing, error);
  const bool enough = space.available > (uint64_t{1} << 30);
  return {"data directory", enough, true,
          data_dir + ", " + common::FormatQuantity(static_cast<double>(space.available)) + "B free" +
              (enough ? "" : ": less than 1 GiB")};
}

Finding Coordinator(const std::string& data_dir) {
  ConnectOptions options;
  options.data_dir = data_dir;
  const auto client = Client::Open(options);
  if (!client) return {"coordinator", true, false, "none running"};
  const auto status = (*client)->Call((*client)->cluster(), &v1::ClusterService::Stub::Status, v1::StatusRequest(),
                                      std::chrono::seconds(5));
  if (!status) return {"coordinator", true, false, "none running (" + (*client)->address() + " does not answer)"};
  return {"coordinator", true, false,
          (*client)->address() + ", " + status->version() + ", " + std::to_string(status->workers()) + " workers"};
}

int Doctor(const Options& options) {
  ALLO_ASSIGN_OR_FAIL(const Trainers trainers, ParseTrainers(options.trainers));
  const std::string data_dir = DataDirOf(options.data_dir);
  std::vector<Finding> findings{Build(), Processors(), BuiltinTrainer(trainers), DataDirectory(data_dir),
                                Coordinator(data_dir)};
  for (const auto& known : coordinator::KnownCorpora()) findings.push_back(Known(known));
  for (const auto& known : coordinator::KnownTasks())
    if (!known.package.empty()) findings.push_back(Known(known));
  common::Table table;
  table.name = "checks";
  table.columns = {{"check", "check", "", common::ColumnKind::kText},
                   {"ok", "ok", "", common::ColumnKind::kBoolean},
                   {"needed", "needed", "", common::ColumnKind::kBoolean},
                   {"detail", "detail", "", common::ColumnKind::kText}};
  bool works = true;
  for (const Finding& finding : findings) {
    table.rows.push_back({finding.check, finding.ok, finding.needed, finding.detail});
    works = works && (finding.ok || !finding.needed);
  }
  Print(table, options.output);
  return works ? kExitOk : common::ExitCodeOf(common::ErrorCode::kFailedPrecondition);
}

void Declare(CLI::App& program) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = program.add_subcommand("doctor", "Say what works on this machine and what is missing");
  verb->add_option("--trainer", options->trainers, "NAME=COMMAND; may be repeated");
  AddDataOption(verb, &options->data_dir);
  AddOutputOptions(verb, &options->output);
  OnRun(verb, [options] { return Doctor(*options); });
}

const VerbRegistration kDoctor(130, Declare);

}  // namespace
}  // namespace allometry::cli::verb_doctor
