#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "common/result.h"

namespace allometry::cli {

using Trainers = std::map<std::string, std::vector<std::string>>;  // name -> command with its arguments

// The folder of the running program.
std::filesystem::path ProgramFolder();

// "NAME=COMMAND" of --trainer, words split at blanks, with '…' and "…" as in a shell. Words with a slash that name a
// file here become absolute, since trainers run in folders of their own. "builtin" is allo-trainer beside this program
// unless given; left out when it is not there.
common::Result<Trainers> ParseTrainers(const std::vector<std::string>& given);

// The command of the allo-trainer beside this program. kFailedPrecondition: it is not there; `what` it does is said.
common::Result<std::vector<std::string>> BuiltinTrainer(const std::string& what);

common::Result<std::vector<std::string>> SplitCommand(const std::string& command);

}  // namespace allometry::cli
