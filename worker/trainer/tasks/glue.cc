#include "worker/trainer/tasks/glue.h"

#include <algorithm>

namespace allometry::trainer {
namespace {

// Where the description's columns are in one file.
struct Columns {
  std::vector<size_t> fields;
  size_t label = 0;
  std::vector<size_t> ids;

  static common::Result<Columns> Find(const GlueDescription& d, const TsvReader& reader) {
    Columns columns;
    for (const GlueDescription::Field& field : d.fields) {
      ALLO_ASSIGN_OR_RETURN(const size_t column, reader.Column(field.column));
      columns.fields.push_back(column);
    }
    ALLO_ASSIGN_OR_RETURN(columns.label, reader.Column(d.label_column));
    for (std::string_view id : d.id_columns)
      if (const auto column = reader.ColumnIfThere(id)) columns.ids.push_back(*column);
    return columns;
  }
};

TaskExample ExampleOf(const GlueDescription& d, const Columns& columns, const TsvReader& reader) {
  TaskExample example;
  example.input = d.prefix;
  for (size_t i = 0; i < d.fields.size(); ++i) {
    const std::string_view text = reader.Field(columns.fields[i]);
    example.input.append(" ").append(d.fields[i].name).append(": ").append(text);
  }
  for (size_t id : columns.ids) example.id.append(example.id.empty() ? "" : "-").append(reader.Field(id));
  if (columns.ids.empty()) example.id = std::to_string(reader.row());
  return example;
}

}  // namespace

GlueTask::GlueTask(GlueDescription description) : d_(std::move(description)), files_{"train.tsv"} {
  files_.insert(files_.end(), d_.valid_files.begin(), d_.valid_files.end());
}

common::Status GlueTask::SetAnswer(std::string_view text, TaskExample* example) const {
  const auto found = std::ranges::find(d_.file_labels, text);
  example->label = static_cast<int32_t>(found - d_.file_labels.begin());
  if (found != d_.file_labels.end()) return common::Ok();
  std::string known;
  for (std::string_view label : d_.file_labels) known += " " + std::string(label);
  return common::InvalidArgument("the label '" + std::string(text) + "' is none of:" + known);
}

common::Status GlueTask::ReadSplit(const TaskFiles& files, std::string_view file, BadRows bad_rows,
                                   const std::string& split, std::vector<TaskExample>* examples,
                                   std::map<std::string, int64_t>* counts) const {
  ALLO_ASSIGN_OR_RETURN(TsvReader reader, TsvReader::Open(files, d_.name, file, bad_rows, d_.columns));
  if (d_.skip_short_rows) reader.SkipShortRows();
  if (d_.mend_doubled_tabs) reader.MendDoubledTabs();
  ALLO_ASSIGN_OR_RETURN(const Columns columns, Columns::Find(d_, reader));
  for (;;) {
    ALLO_ASSIGN_OR_RETURN(const bool more, reader.Next());
    if (!more) break;
    const std::string_view label = reader.Field(columns.label);
    if (!d_.no_label.empty() && label == d_.no_label) {
      AddCount(counts, split + "_rows_without_agreed_label", 1);
      continue;
    }
    TaskExample example = ExampleOf(d_, columns, reader);
    if (const common::Status status = SetAnswer(label, &example); !status) {
      ALLO_RETURN_IF_ERROR(reader.Bad(status.error().message));
      continue;
    }
    examples->push_back(std::move(example));
  }
  reader.AddCounts(split, counts);
  return common::Ok();
}

common::Result<TaskExamples> GlueTask::Read(const TaskFiles& files, BadRows bad_rows) const {
  TaskExamples examples;
  ALLO_RETURN_IF_ERROR(ReadSplit(files, "train.tsv", bad_rows, "train", &examples.train, &examples.counts));
  examples.other_valid.resize(d_.valid_files.size() - 1);
  for (size_t i = 0; i < d_.valid_files.size(); ++i) {
    std::vector<TaskExample>* split = i == 0 ? &examples.valid : &examples.other_valid[i - 1];
    ALLO_RETURN_IF_ERROR(
        ReadSplit(files, d_.valid_files[i], bad_rows, std::string(d_.valid_splits[i]), split, &examples.counts));
  }
  return examples;
}

}  // namespace allometry::trainer
