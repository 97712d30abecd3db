// squad: questions about a paragraph, answered by a span of it (Rajpurkar et al. 2016, SQuAD 1.1)
//   question: Who ate? context: A cat ate.  ->  A cat
// train-v1.1.json and dev-v1.1.json. T5 (preprocessor `squad`) puts blanks around punctuation in the question, the
// context and the answers, and scores against answers changed in that way; a tenth of such answers does not match the
// official ones. Texts stay as they are here, but for white space, which T5 collapses in the input; with t5_padding
// everything is as T5 has it, references included. The target is the first answer, the references are all.
#include <algorithm>
#include <array>

#include "worker/trainer/data/decompress.h"
#include "worker/trainer/tasks/json_row.h"
#include "worker/trainer/tasks/t5_text.h"
#include "worker/trainer/tasks/task.h"
#include "worker/trainer/tasks/task_lines.h"

namespace allometry::trainer {
namespace {

constexpr std::array<std::string_view, 2> kSquadFiles = {"train-v1.1.json", "dev-v1.1.json"};
constexpr std::array<std::string_view, 2> kSquadMetrics = {"f1", "exact_match"};
constexpr std::string_view kName = "squad";

std::string PlaceOf(std::string_view file) { return std::string(kName) + " '" + std::string(file) + "'"; }

// The number, from 1, of the first line that is not UTF-8; 0 if all are.
int64_t BadLine(std::string_view text) {
  if (IsUtf8(text)) return 0;
  for (int64_t number = 1;; ++number) {
    const size_t end = text.find('\n');
    if (end == text.npos || !IsUtf8(text.substr(0, end))) return number;
    text.remove_prefix(end + 1);
  }
}

common::Result<common::Json> ReadFile(const TaskFiles& files, std::string_view file) {
  ALLO_ASSIGN_OR_RETURN(const std::filesystem::path path, PathOfTaskFile(files, kName, file));
  ALLO_ASSIGN_OR_RETURN(TextReader reader, TextReader::Open(path));
  ALLO_ASSIGN_OR_RETURN(const std::string text, reader.ReadAll());
  if (const int64_t line = BadLine(text); line != 0)
    return common::DataLoss(PlaceInFile(kName, file, line) + ": not UTF-8; convert the file, or fetch it again");
  return ParseTaskJson(text, PlaceOf(file));
}

class Squad : public Task {
 public:
  explicit Squad(bool t5_padding) : t5_padding_(t5_padding) {}
  std::string_view name() const override { return kName; }
  std::string_view benchmark() const override { return "squad"; }
  AnswerKind answer() const override { return AnswerKind::kText; }
  std::span<const std::string_view> labels() const override { return {}; }
  std::span<const std::string_view> metrics() const override { return kSquadMetrics; }
  int numerics_version() const override { return 1; }
  std::span<const std::string_view> files() const override { return kSquadFiles; }

  common::Result<TaskExamples> Read(const TaskFiles& files, BadRows bad_rows) const override {
    TaskExamples examples;
    for (const bool train : {true, false}) {
      BadRowCounter bad(bad_rows);
      ALLO_RETURN_IF_ERROR(
          ReadSplit(files, kSquadFiles[train ? 0 : 1], &bad, train ? &examples.train : &examples.valid));
      AddCount(&examples.counts, train ? "train_bad_rows" : "valid_bad_rows", bad.count());
    }
    return examples;
  }

 private:
  // A paragraph without its text or its list of questions is one bad row, and so is a question.
  common::Status ReadSplit(const TaskFiles& files, std::string_view file, BadRowCounter* bad,
                           std::vector<TaskExample>* examples) const {
    ALLO_ASSIGN_OR_RETURN(const common::Json json, ReadFile(files, file));
    ALLO_ASSIGN_OR_RETURN(const std::vector<JsonRow> articles, JsonRow(json, PlaceOf(file)).Objects("data"));
    int32_t passage = 0;
    for (const JsonRow& article : articles) {
      ALLO_ASSIGN_OR_RETURN(const std::vector<JsonRow> paragraphs, article.Objects("paragraphs"));
      for (const JsonRow& paragraph : paragraphs) {
        const common::Status added = AddParagraph(paragraph, passage++, bad, examples);
        if (!added.ok()) ALLO_RETURN_IF_ERROR(bad->Take(added.error()));
      }
    }
    return common::Ok();
  }

  common::Status AddParagraph(const JsonRow& paragraph, int32_t number, BadRowCounter* bad,
                              std::vector<TaskExample>* examples) const {
    ALLO_ASSIGN_OR_RETURN(const std::string context, paragraph.Text("context"));
    ALLO_ASSIGN_OR_RETURN(const std::vector<JsonRow> questions, paragraph.Objects("qas"));
    const std::string prepared = Prepared(context);
    for (const JsonRow& question : questions) {
      auto example = ExampleOf(question, number, prepared);
      if (example) examples->push_back(std::move(*example));
      if (!example) ALLO_RETURN_IF_ERROR(bad->Take(example.error()));
    }
    return common::Ok();
  }

  common::Result<TaskExample> ExampleOf(const JsonRow& question, int32_t passage, const std::string& context) const {
    TaskExample example{.label = -1, .passage = passage};
    ALLO_ASSIGN_OR_RETURN(const std::string text, question.Text("question"));
    ALLO_ASSIGN_OR_RETURN(example.id, question.Id("id"));
    ALLO_ASSIGN_OR_RETURN(example.references, Answers(question));
    example.target = example.references.front();
    example.input = CollapseBlanks("question: " + Prepared(text) + " context: " + context);
    return example;
  }

  common::Result<std::vector<std::string>> Answers(const JsonRow& question) const {
    ALLO_ASSIGN_OR_RETURN(const std::vector<JsonRow> answers, question.Objects("answers"));
    std::vector<std::string> texts;
    for (const JsonRow& answer : answers) {
      ALLO_ASSIGN_OR_RETURN(std::string text, answer.Text("text"));
      if (text.empty()) return answer.Wrong("'text' is empty");
      text = Prepared(text);
      if (std::ranges::find(texts, text) == texts.end()) texts.push_back(std::move(text));
    }
    if (texts.empty()) return question.Wrong("the question has no answers; is this SQuAD 2.0?");
    return texts;
  }

  std::string Prepared(const std::string& text) const { return t5_padding_ ? PadPunctuationAsT5(text) : text; }

  bool t5_padding_;
};

}  // namespace

const Task& SquadV11Task(bool t5_padding) {
  static const Squad plain(false), padded(true);
  return t5_padding ? padded : plain;
}

}  // namespace allometry::trainer
