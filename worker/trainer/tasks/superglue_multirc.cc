// superglue_multirc: is an answer to a question about a passage right? (Khashabi et al. 2018)
//   multirc question: Who ate? answer: the cat paragraph: A cat ate. A dog slept.  ->  True
// One example an answer option; the options of one question share its number, which F1a does not look at and exact
// match does. HTML's <br> becomes a blank, <b> and </b> go, in all three texts, as in T5. The id is passage/question/
// answer.
#include <array>
#include <string>

#include "worker/trainer/tasks/superglue.h"

namespace allometry::trainer {
namespace {

constexpr std::array<std::string_view, 2> kMultiRcMetrics = {"f1a", "exact_match"};

void ReplaceAll(std::string* text, std::string_view what, std::string_view with) {
  for (size_t at = text->find(what); at != text->npos; at = text->find(what, at + with.size()))
    text->replace(at, what.size(), with);
}

std::string WithoutMarkup(std::string text) {
  ReplaceAll(&text, "<br>", " ");
  ReplaceAll(&text, "<b>", "");
  ReplaceAll(&text, "</b>", "");
  return text;
}

class SuperglueMultirc : public SuperglueTask {
 public:
  std::string_view name() const override { return "superglue_multirc"; }
  std::span<const std::string_view> labels() const override { return kFalseTrue; }
  std::span<const std::string_view> metrics() const override { return kMultiRcMetrics; }

 protected:
  common::Status AddRow(const JsonRow& row, SuperglueSplit* split) const override {
    ALLO_ASSIGN_OR_RETURN(const JsonRow passage, row.Object("passage"));
    ALLO_ASSIGN_OR_RETURN(const std::string paragraph, passage.Text("text"));
    ALLO_ASSIGN_OR_RETURN(const std::string id, row.Id("idx"));
    ALLO_ASSIGN_OR_RETURN(const std::vector<JsonRow> questions, passage.Objects("questions"));
    const int32_t number = split->PassageNumber(paragraph);
    for (const JsonRow& question : questions) ALLO_RETURN_IF_ERROR(AddQuestion(question, paragraph, id, number, split));
    return common::Ok();
  }

 private:
  static common::Status AddQuestion(const JsonRow& question, const std::string& paragraph, const std::string& id,
                                    int32_t passage, SuperglueSplit* split) {
    ALLO_ASSIGN_OR_RETURN(const std::string text, question.Text("question"));
    ALLO_ASSIGN_OR_RETURN(const std::string question_id, question.Id("idx"));
    ALLO_ASSIGN_OR_RETURN(const std::vector<JsonRow> answers, question.Objects("answers"));
    const int32_t number = split->examples.empty() ? 0 : split->examples.back().question + 1;
    AddCount(split->counts, split->name + "_questions_without_options", answers.empty());
    for (const JsonRow& answer : answers) {
      TaskExample example;
      ALLO_ASSIGN_OR_RETURN(const std::string option, answer.Text("text"));
      ALLO_ASSIGN_OR_RETURN(const std::string option_id, answer.Id("idx"));
      ALLO_ASSIGN_OR_RETURN(example.label, answer.Truth("label"));
      example.input = WithoutMarkup("multirc question: " + text + " answer: " + option + " paragraph: " + paragraph);
      example.id = id + "/" + question_id + "/" + option_id;
      example.question = number;
      example.passage = passage;
      split->examples.push_back(std::move(example));
    }
    return common::Ok();
  }
};

}  // namespace

const Task& SuperglueMultircTask() {
  static const SuperglueMultirc task;
  return task;
}

}  // namespace allometry::trainer
