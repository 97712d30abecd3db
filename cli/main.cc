#include <csignal>
#include <exception>
#include <iostream>
#include <memory>

#include "cli/help_format.h"
#include "cli/verb.h"
#include "common/ids.h"
#include "common/version.h"

namespace {

using allometry::common::ErrorCode;
using allometry::common::ExitCodeOf;

constexpr char kFooter[] =
    "Exit codes: 0 success; 1 finished, with failed runs; 2 wrong arguments or sweep\n"
    "file; 3 not found; 4 exists already; 5 not possible now; 7 disk or queue full;\n"
    "8 coordinator not reachable; 9 not permitted; 130 interrupted; 70 a bug.";

int UnknownVerb(const CLI::App& program, const std::string& word) {
  std::vector<std::string> names;
  for (const CLI::App* verb : program.get_subcommands({})) names.push_back(verb->get_name());
  const std::string near = allometry::common::NearestName(word, names);
  std::cerr << "allo: no verb is called '" << word << "'";
  if (!near.empty()) std::cerr << "; did you mean 'allo " << near << "'?";
  std::cerr << " (allo --help lists them)\n";
  return ExitCodeOf(ErrorCode::kInvalidArgument);
}

int Run(CLI::App& program, int argc, char** argv) {
  try {
    program.parse(argc, argv);
    return 0;
  } catch (const CLI::RuntimeError& error) {
    return error.get_exit_code();
  } catch (const CLI::ParseError& error) {
    if (argc > 1 && argv[1][0] != '-' && program.get_subcommands().empty()) return UnknownVerb(program, argv[1]);
    const int code = program.exit(error);
    return code == 0 ? 0 : ExitCodeOf(ErrorCode::kInvalidArgument);  // 0: --help, --version
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  CLI::App program{"Allometry: scaling-law experiments, from a sweep file to slopes and Pareto tables", "allo"};
  program.set_version_flag("--version", std::string("allo ") + allometry::common::kVersion + " (" +
                                            allometry::common::kCommit + ", " + allometry::common::kBuildType + ")");
  program.footer(kFooter);
  program.formatter(std::make_shared<allometry::cli::HelpFormatter>());
  program.require_subcommand(1);
  try {
    allometry::cli::DeclareVerbs(program);
    return Run(program, argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "allo: internal error: " << error.what() << '\n';
    return ExitCodeOf(ErrorCode::kInternal);
  }
}
