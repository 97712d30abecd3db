#include "cli/trainers.h"

#include <utility>

namespace allometry::cli {

namespace fs = std::filesystem;

fs::path ProgramFolder() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  return error ? fs::path(".") : program.parent_path();
}

common::Result<std::vector<std::string>> SplitCommand(const std::string& command) {
  std::vector<std::string> words;
  std::string word;
  char quote = 0;
  bool inside = false;
  for (const char c : command) {
    if (quote) {
      c == quote ? void(quote = 0) : word.push_back(c);
    } else if (c == '\'' || c == '"') {
      quote = c;
      inside = true;
    } else if (c == ' ' || c == '\t') {
      if (inside) words.push_back(std::exchange(word, ""));
      inside = false;
    } else {
      word.push_back(c);
      inside = true;
    }
  }
  if (quote)
    return common::InvalidArgument("the command has an opening " + std::string(1, quote) + " without a closing one");
  if (inside) words.push_back(word);
  return words;
}

common::Result<std::vector<std::string>> BuiltinTrainer(const std::string& what) {
  ALLO_ASSIGN_OR_RETURN(const Trainers trainers, ParseTrainers({}));
  if (const auto found = trainers.find("builtin"); found != trainers.end()) return found->second;
  return common::FailedPrecondition("allo-trainer, which " + what + ", is not beside allo in " +
                                    ProgramFolder().string() + ": build it (needs LibTorch: deploy/install-deps.sh)");
}

common::Result<Trainers> ParseTrainers(const std::vector<std::string>& given) {
  Trainers trainers;
  std::error_code ignored;
  const fs::path own = ProgramFolder() / "allo-trainer";
  if (fs::exists(own, ignored)) trainers["builtin"] = {own.string()};
  for (const std::string& entry : given) {
    const size_t equals = entry.find('=');
    if (equals == std::string::npos || equals == 0)
      return common::InvalidArgument("--trainer is '" + entry + "'; it takes NAME=COMMAND, as in ngram=./ngram.py");
    ALLO_ASSIGN_OR_RETURN(auto words, SplitCommand(entry.substr(equals + 1)));
    if (words.empty()) return common::InvalidArgument("--trainer " + entry + " has no command behind the =");
    for (std::string& word : words)
      if (word.find('/') != std::string::npos && fs::exists(word, ignored))
        word = fs::absolute(word).lexically_normal();
    trainers[entry.substr(0, equals)] = std::move(words);
  }
  return trainers;
}

}  // namespace allometry::cli
