#include <iostream>
#include <memory>

#include "cli/verb.h"

namespace allometry::cli::verb_completion {
namespace {

// Names that may follow a verb: its own verbs and its long options.
std::vector<std::string> WordsAfter(const CLI::App& verb) {
  std::vector<std::string> words;
  for (const CLI::App* nested : verb.get_subcommands({})) words.push_back(nested->get_name());
  for (const CLI::Option* option : verb.get_options())
    for (const std::string& name : option->get_lnames()) words.push_back("--" + name);
  return words;
}

std::string Joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

std::string Cases(const CLI::App& program, const char* format_begin, const char* format_end) {
  std::string text;
  for (const CLI::App* verb : program.get_subcommands({}))
    text += "    " + verb->get_name() + ") " + format_begin + Joined(WordsAfter(*verb)) + format_end + " ;;\n";
  return text;
}

// Behind a verb its options; files for everything else, since sweeps are files.
std::string Bash(const CLI::App& program) {
  return "_allo() {\n  local word=\"${COMP_WORDS[COMP_CWORD]}\" words=\"\"\n"
         "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n    COMPREPLY=($(compgen -W \"" +
         Joined(WordsAfter(program)) + "\" -- \"$word\"))\n    return\n  fi\n  case \"${COMP_WORDS[1]}\" in\n" +
         Cases(program, "words=\"", "\"") +
         "  esac\n  COMPREPLY=($(compgen -W \"$words\" -- \"$word\") $(compgen -f -- \"$word\"))\n}\n"
         "complete -o filenames -F _allo allo\n";
}

std::string Zsh(const CLI::App& program) {
  return "#compdef allo\n_allo() {\n  local -a options\n  if (( CURRENT == 2 )); then\n    options=(" +
         Joined(WordsAfter(program)) + ")\n    compadd -a options\n    return\n  fi\n  case \"$words[2]\" in\n" +
         Cases(program, "options=(", ")") + "  esac\n  compadd -a options\n  _files\n}\ncompdef _allo allo\n";
}

std::string Fish(const CLI::App& program) {
  std::string text = "complete -c allo -n __fish_use_subcommand -f -a '" + Joined(WordsAfter(program)) + "'\n";
  for (const CLI::App* verb : program.get_subcommands({}))
    text += "complete -c allo -n '__fish_seen_subcommand_from " + verb->get_name() + "' -a '" +
            Joined(WordsAfter(*verb)) + "'\n";
  return text;
}

void Declare(CLI::App& program) {
  auto shell = std::make_shared<std::string>();
  CLI::App* verb = program.add_subcommand("completion", "Print completions for a shell");
  verb->add_option("shell", *shell, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  OnRun(verb, [shell, &program] {
    std::cout << (*shell == "bash" ? Bash(program) : *shell == "zsh" ? Zsh(program) : Fish(program));
    return kExitOk;
  });
}

const VerbRegistration kCompletion(140, Declare);

}  // namespace
}  // namespace allometry::cli::verb_completion
