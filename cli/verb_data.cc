#include <unistd.h>

#include <csignal>
#include <iostream>

#include "cli/trainers.h"
#include "cli/verb.h"
#include "common/files.h"

namespace allometry::cli::verb_data {
namespace {

// The words that were given, from what CLI11 read.
std::vector<std::string> WordsOf(const CLI::App& verb) {
  std::vector<std::string> words;
  for (const CLI::Option* option : verb.get_options()) {
    if (option->count() == 0) continue;
    if (!option->get_lnames().empty()) words.push_back("--" + option->get_lnames()[0]);
    if (option->get_expected_max() > 0) words.insert(words.end(), option->results().begin(), option->results().end());
  }
  return words;
}

// allo has no SentencePiece: the trainer beside it does the work, in place of this process, so that its output, its
// exit code and signals are those of the verb.
int RunTrainer(const CLI::App& verb) {
  ALLO_ASSIGN_OR_FAIL(std::vector<std::string> command, BuiltinTrainer("makes data sets"));
  command.insert(command.end(), {"data", verb.get_name()});
  for (std::string& word : WordsOf(verb)) command.push_back(std::move(word));
  std::vector<char*> argv;
  for (std::string& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::cout.flush();
  std::signal(SIGPIPE, SIG_DFL);
  ::execv(argv[0], argv.data());
  return Fail(common::Internal("cannot start '" + command[0] + "': " + common::ErrnoText()));
}

CLI::App* AddVerb(CLI::App* data, const char* name, const char* description) {
  CLI::App* verb = data->add_subcommand(name, description);
  OnRun(verb, [verb] { return RunTrainer(*verb); });
  return verb;
}

CLI::Option* AddOne(CLI::App* verb, const std::string& name, const std::string& description) {
  return verb->add_option(name, description)->expected(1);
}

CLI::Option* AddSome(CLI::App* verb, const std::string& name, const std::string& description) {
  return verb->add_option(name, description)->expected(1, CLI::detail::expected_max_vector_size);
}

void AddTextOptions(CLI::App* verb) {
  AddSome(verb, "--in", "Patterns of files, or of folders of files; plain, .gz, .xz or .zst")->required();
  AddOne(verb, "--format", "text, jsonl, wikipedia, tsv or auto (default: by the first file's content)");
  AddOne(verb, "--field", "jsonl: the member that is the text (default: text)");
  AddOne(verb, "--column", "tsv: a name of the first line (default: text), or a number from 1: no header");
  AddOne(verb, "--document", "text: what one document is: paragraph (default), line or file");
  verb->add_flag("--skip-bad-rows")->description("Leave out and count rows and files that are broken");
  AddOne(verb, "--seed", "Of the sample that a tokenizer is trained on (default: 0)");
}

void DeclareBuild(CLI::App* data) {
  CLI::App* build = AddVerb(data, "build", "Make a data set from raw text; goes on where it was stopped");
  AddTextOptions(build);
  AddOne(build, "--out", "Folder of the data set; new")->required();
  AddSome(build, "--valid", "Patterns of the files that are the validation part");
  AddOne(build, "--validation-fraction", "Otherwise: the share of documents that are (default: 0.01)");
  AddOne(build, "--tokenizer", "SentencePiece model (default: one is trained)");
  AddOne(build, "--vocabulary", "Rows of the embedding: pieces + 100 (default: 8192; with a model 32128)");
  AddOne(build, "--threads", "Threads that tokenise (default: one a processor)");
  AddOne(build, "--shard-tokens", "Most tokens of one file (default: 100000000)");
}

void DeclareTokenizer(CLI::App* data) {
  CLI::App* tokenizer = AddVerb(data, "tokenizer", "Train a SentencePiece model on raw text");
  AddTextOptions(tokenizer);
  AddOne(tokenizer, "--out", "File of the model; new")->required();
  AddOne(tokenizer, "--vocabulary", "Pieces + 100 sentinels")->required();
  AddOne(tokenizer, "--sample-sentences", "Of the text (default: 20000, or four times the vocabulary)");
}

void Declare(CLI::App& program) {
  CLI::App* data = program.add_subcommand("data", "Build and show data sets; train tokenizers");
  data->require_subcommand(1);
  DeclareBuild(data);
  DeclareTokenizer(data);
  CLI::App* show = AddVerb(data, "show", "Show sizes, samples and a corrupted example of a data set");
  AddOne(show, "folder", "What build made, or the data of a done cell 'prepare'")->required();
  AddOne(show, "--input-length", "Tokens of the example after corruption (default: 128)");
  AddOne(show, "--output", "text (default) or json");
}

const VerbRegistration kData(115, Declare);

}  // namespace
}  // namespace allometry::cli::verb_data
