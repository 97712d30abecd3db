// superglue_record: which of an article's entities belongs into a sentence's gap? (Zhang et al. 2018, ReCoRD)
//   record query: It was @placeholder . entities: Ann, Bob passage: Ann met Bob. They sang  ->  Ann
// As T5: the gap stays "@placeholder"; entities each once, sorted by code point; "\n@highlight\n" between the article
// and its summary's sentences becomes a blank after . ? ! " ' and ". " otherwise. Training has one example an answer of
// different text, validation one a query with all of them as references. The id is passage/query.
#include <algorithm>
#include <array>
#include <set>
#include <string>

#include "worker/trainer/tasks/superglue.h"

namespace allometry::trainer {
namespace {

constexpr std::array<std::string_view, 2> kRecordMetrics = {"f1", "exact_match"};
constexpr std::string_view kHighlight = "\n@highlight\n";

std::string PassageText(std::string_view text) {
  std::string out;
  for (size_t at = text.find(kHighlight); at != text.npos; at = text.find(kHighlight)) {
    const bool ended = at > 0 && std::string_view(".?!\"'").find(text[at - 1]) != std::string_view::npos;
    out.append(text.substr(0, at)).append(ended ? " " : ". ");
    text.remove_prefix(at + kHighlight.size());
  }
  return out.append(text);
}

// Where each character of a UTF-8 text begins, and where the text ends: ReCoRD counts in characters.
std::vector<size_t> CharacterOffsets(std::string_view text) {
  std::vector<size_t> offsets;
  for (size_t i = 0; i < text.size(); ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) offsets.push_back(i);
  offsets.push_back(text.size());
  return offsets;
}

// The entities' texts. `end` of the file is the last character's position.
common::Result<std::vector<std::string>> Entities(const JsonRow& passage, const std::string& text) {
  ALLO_ASSIGN_OR_RETURN(const std::vector<JsonRow> spans, passage.Objects("entities"));
  const std::vector<size_t> offsets = CharacterOffsets(text);
  std::set<std::string> entities;
  for (const JsonRow& span : spans) {
    ALLO_ASSIGN_OR_RETURN(const int64_t start, span.Integer("start"));
    ALLO_ASSIGN_OR_RETURN(const int64_t end, span.Integer("end"));
    if (start < 0 || end < start || end + 1 >= static_cast<int64_t>(offsets.size()))
      return span.Wrong("the entity from " + std::to_string(start) + " to " + std::to_string(end) +
                        " does not lie in its passage of " + std::to_string(offsets.size() - 1) + " characters");
    const size_t first = offsets[static_cast<size_t>(start)];
    entities.insert(text.substr(first, offsets[static_cast<size_t>(end) + 1] - first));
  }
  return std::vector<std::string>(entities.begin(), entities.end());
}

common::Result<std::vector<std::string>> Answers(const JsonRow& query) {
  ALLO_ASSIGN_OR_RETURN(const std::vector<JsonRow> answers, query.Objects("answers"));
  std::vector<std::string> texts;
  for (const JsonRow& answer : answers) {
    ALLO_ASSIGN_OR_RETURN(std::string text, answer.Text("text"));
    if (std::ranges::find(texts, text) == texts.end()) texts.push_back(std::move(text));
  }
  if (texts.empty()) return query.Wrong("the query has no answers");
  return texts;
}

std::string Joined(const std::vector<std::string>& texts) {
  std::string out;
  for (const std::string& text : texts) out += (out.empty() ? "" : ", ") + text;
  return out;
}

class SuperglueRecord : public SuperglueTask {
 public:
  std::string_view name() const override { return "superglue_record"; }
  AnswerKind answer() const override { return AnswerKind::kText; }
  std::span<const std::string_view> labels() const override { return {}; }
  std::span<const std::string_view> metrics() const override { return kRecordMetrics; }

 protected:
  common::Status AddRow(const JsonRow& row, SuperglueSplit* split) const override {
    ALLO_ASSIGN_OR_RETURN(const JsonRow passage, row.Object("passage"));
    ALLO_ASSIGN_OR_RETURN(const std::string text, passage.Text("text"));
    ALLO_ASSIGN_OR_RETURN(const std::string id, row.Id("idx"));
    ALLO_ASSIGN_OR_RETURN(const std::vector<JsonRow> queries, row.Objects("qas"));
    TaskExample shared;  // what the row's examples have in common
    ALLO_ASSIGN_OR_RETURN(shared.choices, Entities(passage, text));
    shared.passage = split->PassageNumber(text);
    for (const JsonRow& query : queries) {
      TaskExample example = shared;
      ALLO_ASSIGN_OR_RETURN(const std::string query_text, query.Text("query"));
      ALLO_ASSIGN_OR_RETURN(const std::string query_id, query.Id("idx"));
      ALLO_ASSIGN_OR_RETURN(example.references, Answers(query));
      example.input =
          "record query: " + query_text + " entities: " + Joined(example.choices) + " passage: " + PassageText(text);
      example.id = id + "/" + query_id;
      AddExamples(std::move(example), split);
    }
    return common::Ok();
  }

 private:
  static void AddExamples(TaskExample example, SuperglueSplit* split) {
    for (const std::string& answer : example.references) {
      TaskExample one = example;
      const auto found = std::ranges::find(one.choices, answer);
      one.label = found == one.choices.end() ? -1 : static_cast<int32_t>(found - one.choices.begin());
      one.target = answer;
      AddCount(split->counts, split->name + "_answers_not_among_entities", one.label < 0);
      split->examples.push_back(std::move(one));
      if (!split->train) return;
    }
  }
};

}  // namespace

const Task& SuperglueRecordTask() {
  static const SuperglueRecord task;
  return task;
}

}  // namespace allometry::trainer
