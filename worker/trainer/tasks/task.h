#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/result.h"

namespace allometry::trainer {

// How an answer is given, and so how it is told right from wrong.
enum class AnswerKind {
  kLabel,     // one of the task's labels, word by word
  kNumber,    // a number as text; the labels are the numbers that are trained on, TaskExample::value is the gold one
  kText,      // free text, compared with every reference; or one of the example's own choices
  kReferent,  // free text; label 1 says that it should name references[0], label 0 that it should not (WSC)
};

// One example as text: what the model reads, and what it should answer.
struct TaskExample {
  std::string input;
  // Which of the task's labels is right; of a task without labels, which of the example's choices (kReferent: see
  // there); -1 where there is nothing to choose from.
  int32_t label = 0;
  // What must not be in both splits: the lemmas that the example is about. Empty where the benchmark made the splits.
  std::vector<std::string> lemmas = {};
  // What a model is trained to write, if the task has no labels. TargetText is the same for every task.
  std::string target = {};
  // All acceptable answers, if the task has no labels; each once, in the file's order.
  std::vector<std::string> references = {};
  // What rank classification chooses from, where that differs from example to example; empty: the task's labels, or
  // nothing (SQuAD).
  std::vector<std::string> choices = {};
  double value = 0;  // kNumber: the gold number, not rounded
  // Numbers from 0 upwards within the split, -1: none. Examples of one question are scored as one (MultiRC); examples
  // of one passage are not independent, so a bootstrap draws whole passages.
  int32_t question = -1, passage = -1;
  // The example's name in its file (idx, id, index), else its row number from 0: for files of predictions.
  std::string id = {};
};

struct TaskExamples {
  // In an order such that every prefix is as balanced as the whole, so that a cap is a prefix (WordNet); or in the
  // file's order. `valid` is the first of the task's validation splits.
  std::vector<TaskExample> train, valid;
  // The task's further validation splits, in their order.
  std::vector<std::vector<TaskExample>> other_valid = {};
  // What was left out or mended and why, by name.
  std::map<std::string, int64_t> counts;
};

// What becomes of a row that cannot be read: an error with its place, or it is left out and counted, as
// "<split>_bad_rows".
enum class BadRows { kFail, kSkip };

using TaskFiles = std::map<std::string, std::filesystem::path>;  // name -> path

// A downstream task. Instances are constants owned by the registry (or made from a user's options); one file each.
class Task {
 public:
  virtual ~Task() = default;
  virtual std::string_view name() const = 0;
  // Whose average its score goes into: "glue", "superglue", "squad", "wordnet", or "own" for a user's task.
  virtual std::string_view benchmark() const = 0;
  // False for a task that the benchmark's average leaves out (WNLI).
  virtual bool in_average() const { return true; }
  virtual AnswerKind answer() const { return AnswerKind::kLabel; }
  // The closed set of answers; empty for free text. Of two labels the second is the positive class.
  virtual std::span<const std::string_view> labels() const = 0;
  // What is measured; the task's score is the mean. accuracy, matthews; f1 (of labels: of the positive class; of text:
  // of words, best reference), f1_macro; pearson, spearman; exact_match (of text: best reference; of labels: whole
  // questions right), f1a (over all of MultiRC's options).
  virtual std::span<const std::string_view> metrics() const;
  std::string_view metric() const { return metrics().front(); }
  // Names of the validation splits: one, "valid", but for MNLI.
  virtual std::span<const std::string_view> valid_splits() const;
  // Raised whenever the same files would give other examples: part of every run's identity.
  virtual int numerics_version() const = 0;
  // Names of the files that it reads; those in optional_files may be missing.
  virtual std::span<const std::string_view> files() const = 0;
  virtual std::span<const std::string_view> optional_files() const { return {}; }
  // Whether its rows are apart from each other, so that bad ones can be left out. WordNet's are not.
  virtual bool can_skip_bad_rows() const { return true; }
  // Reads the raw files. kNotFound: a file is missing; kDataLoss names the file and the line.
  virtual common::Result<TaskExamples> Read(const TaskFiles& files, BadRows bad_rows) const = 0;
  common::Result<TaskExamples> Read(const TaskFiles& files) const { return Read(files, BadRows::kFail); }
};

// What a model should write: the label's word, or the example's target.
std::string_view TargetText(const Task& task, const TaskExample& example);

// All tasks that need no declaration: WordNet's two, GLUE with WNLI, SuperGLUE, SQuAD; in the order of docs/tasks.md.
std::span<const Task* const> Tasks();
common::Result<const Task*> FindTask(std::string_view name);  // kNotFound names the nearest one

// One function a task file, called by the registry.
const Task& WordnetPosTask();
const Task& WordnetWicTask();
const Task& GlueColaTask();
const Task& GlueSst2Task();
const Task& GlueMrpcTask();
const Task& GlueQqpTask();
const Task& GlueStsbTask();
const Task& GlueMnliTask();
const Task& GlueQnliTask();
const Task& GlueRteTask();
const Task& GlueWnliTask();
const Task& SuperglueBoolqTask();
const Task& SuperglueCbTask();
const Task& SuperglueCopaTask();
const Task& SuperglueMultircTask();
const Task& SuperglueRecordTask();
const Task& SuperglueRteTask();
const Task& SuperglueWicTask();
const Task& SuperglueWscTask();
// `t5_padding`: with T5's blanks around punctuation, in the references too (squad.cc).
const Task& SquadV11Task(bool t5_padding = false);

}  // namespace allometry::trainer
