#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "worker/trainer/tasks/task.h"
#include "worker/trainer/tasks/tsv_reader.h"

// What the GLUE tasks share. A row becomes "<prefix> <field>: <text> <field>: <text>", as T5 wrote it: the fields in
// the alphabetical order of their names in TensorFlow Datasets, the texts as they stand in the file, blanks at their
// ends included. Source: Raffel et al. 2020 (arXiv 1910.10683) and its preprocessor `glue` in
// google-research/text-to-text-transfer-transformer.
namespace allometry::trainer {

struct GlueDescription {
  std::string_view name;
  std::string_view prefix;
  struct Field {
    std::string_view name;    // in the input
    std::string_view column;  // in the file
  };
  std::vector<Field> fields;
  std::string_view label_column;
  std::vector<std::string_view> labels;       // the words that are answered
  std::vector<std::string_view> file_labels;  // the same as the file writes them
  std::vector<std::string_view> metrics = {"accuracy"};
  std::vector<std::string_view> id_columns = {};  // joined by "-"; none, or absent from the file: the row number
  std::vector<std::string> columns = {};          // names for files without a header
  std::string_view no_label = {};  // what the file writes where annotators did not agree: such a row is left out
  bool skip_short_rows = false, mend_doubled_tabs = false;  // for files that are known to have them: TsvReader
  std::vector<std::string_view> valid_files = {"dev.tsv"};
  std::vector<std::string_view> valid_splits = {"valid"};
};

class GlueTask : public Task {
 public:
  explicit GlueTask(GlueDescription description);

  std::string_view name() const override { return d_.name; }
  std::string_view benchmark() const override { return "glue"; }
  std::span<const std::string_view> labels() const override { return d_.labels; }
  std::span<const std::string_view> metrics() const override { return d_.metrics; }
  std::span<const std::string_view> valid_splits() const override { return d_.valid_splits; }
  int numerics_version() const override { return 1; }
  std::span<const std::string_view> files() const override { return files_; }
  common::Result<TaskExamples> Read(const TaskFiles& files, BadRows bad_rows) const override;

 protected:
  // Appends a file's examples. `split` begins the names of its counts.
  common::Status ReadSplit(const TaskFiles& files, std::string_view file, BadRows bad_rows, const std::string& split,
                           std::vector<TaskExample>* examples, std::map<std::string, int64_t>* counts) const;
  // Sets the example's label from the file's text. kInvalidArgument says what is wrong with it, without the place.
  virtual common::Status SetAnswer(std::string_view text, TaskExample* example) const;

 private:
  GlueDescription d_;
  std::vector<std::string_view> files_;
};

}  // namespace allometry::trainer
