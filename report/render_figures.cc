#include "report/render_figures.h"

#include <cstdlib>

#include "common/files.h"
#include "common/program_output.h"
#include "report/assets.h"

namespace allometry::report {
namespace {

using common::Result;
using common::Status;
namespace fs = std::filesystem;

// A new folder that goes away with the object.
class ScratchFolder {
 public:
  static Result<ScratchFolder> Make() {
    std::string pattern = (fs::temp_directory_path() / "allometry_report_XXXXXX").string();
    if (!::mkdtemp(pattern.data()))
      return common::Unavailable("cannot make a folder like '" + pattern + "': " + common::ErrnoText());
    return ScratchFolder(pattern);
  }
  ScratchFolder(ScratchFolder&& other) noexcept : path_(std::move(other.path_)) { other.path_.clear(); }
  ScratchFolder& operator=(ScratchFolder&&) = delete;
  ~ScratchFolder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  explicit ScratchFolder(fs::path path) : path_(std::move(path)) {}
  fs::path path_;
};

template <typename Visit>
Status ForEachFigure(const Report& report, const Visit& visit) {
  for (const Section& section : report.sections)
    for (const Figure& figure : section.figures) ALLO_RETURN_IF_ERROR(visit(figure));
  return common::Ok();
}

common::Error CannotDraw(const std::string& reason) {
  return common::FailedPrecondition("the figures cannot be drawn: " + reason +
                                    ". Run deploy/install-deps.sh, which installs vl-convert-python; the formats json, "
                                    "markdown and latex need no drawings");
}

std::string Trimmed(std::string text) {
  text.erase(text.find_last_not_of(" \n.") + 1);
  return text;
}

Status RunPython(const fs::path& python, std::vector<std::string> arguments) {
  std::error_code error;
  if (!fs::exists(python, error)) return CannotDraw("there is no Python at '" + python.string() + "'");
  std::vector<std::string> command = {python.string(), "-c", kRenderFigures};
  command.insert(command.end(), arguments.begin(), arguments.end());
  const common::ProgramOutput output = common::RunAndRead(command, /*errors_too=*/true);
  if (output.exit_code == 0) return common::Ok();
  return CannotDraw(output.text.empty() ? "'" + python.string() + "' was killed or could not be started"
                                        : Trimmed(output.text));
}

}  // namespace

Status WriteFigureData(const Report& report, const fs::path& folder) {
  ALLO_RETURN_IF_ERROR(common::MakeDirectories(folder));
  return ForEachFigure(report, [&](const Figure& figure) -> Status {
    ALLO_RETURN_IF_ERROR(
        common::WriteFileAtomically(folder / (figure.name + ".vl.json"), Specification(figure).dump(1) + "\n"));
    return common::WriteFileAtomically(folder / (figure.name + ".csv"),
                                       common::Render(figure.data, common::OutputFormat::kCsv));
  });
}

Result<Drawings> RenderFigures(const Report& report, const fs::path& wanted_folder, const fs::path& python) {
  ALLO_ASSIGN_OR_RETURN(const ScratchFolder scratch, ScratchFolder::Make());
  const fs::path folder = wanted_folder.empty() ? scratch.path() : wanted_folder;
  const fs::path javascript = scratch.path() / "vega.js";
  ALLO_RETURN_IF_ERROR(WriteFigureData(report, folder));
  std::vector<std::string> arguments = {folder.string(), javascript.string()};
  ALLO_RETURN_IF_ERROR(ForEachFigure(report, [&](const Figure& figure) {
    arguments.push_back(figure.name);
    return common::Ok();
  }));
  ALLO_RETURN_IF_ERROR(RunPython(python, arguments));
  Drawings drawings;
  ALLO_ASSIGN_OR_RETURN(drawings.javascript, common::ReadFile(javascript));
  ALLO_RETURN_IF_ERROR(ForEachFigure(report, [&](const Figure& figure) -> Status {
    ALLO_ASSIGN_OR_RETURN(drawings.svg[figure.name], common::ReadFile(folder / (figure.name + ".svg")));
    return common::Ok();
  }));
  return drawings;
}

fs::path DefaultPython() {
  const char* dependencies = std::getenv("ALLOMETRY_DEPS");
  return fs::path(dependencies && *dependencies ? dependencies : ALLOMETRY_DEPENDENCIES) / "bin" / "python";
}

}  // namespace allometry::report
