#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"
#include "records/records.h"

// Tables of runs that were trained elsewhere (docs/science.md, "Import").
namespace allometry::records {

// Which column fills what. Written as "params=N,tokens=D,loss=final_loss,architecture=model": field=column, or
// field:=text for the same text in every row. A column or text that holds a comma stands in double quotes.
//
// Fields: sweep, cell, architecture, size, shape, seed, state (done, failed, diverged, unfinished), device; a number by
// its name among `metrics` (validation_loss, training_flops, forward_flops, six_nd, parameters, ...) or as
// metric.<name>; a score as <task>.value, with .standard_error, .majority, .examples and .at_chance; tag.<name>. Short
// names: params, n (parameters), tokens, d, loss (validation_loss), flops (training_flops), model (architecture),
// accuracy of a task: score.<task>.
struct ColumnMapping {
  std::map<std::string, std::string> columns;    // by field
  std::map<std::string, std::string> constants;  // by field
};

// kInvalidArgument: not of that form, a field given twice, or an unknown field (with the nearest known one).
common::Result<ColumnMapping> ParseColumnMapping(std::string_view text);

struct Import {
  Table table;
  std::vector<std::string> unused_columns;  // in the order of the file
  // Sentences on what was assumed or missing, for instance how many values of a column are empty, and where first.
  std::vector<std::string> notes;
};

// One record a row. A column whose name is that of a field is taken without being mapped, so that an export comes back.
// - An empty field, NA, N/A, null, none and nan are missing values: the record lacks that number. Rows without an
//   architecture are an error.
// - Without `state` a row is done. Without `size` it is the parameters in three digits ("412M"; further digits where
//   sizes would become equal), and tokens where known, else training FLOPs, are the shape, since the same model trained
//   longer is not a second seed. Without `seed` rows of one architecture, size and shape count as seeds, from 1 in the
//   order of the file. Without `sweep` it is "imported".
// - six_nd is computed where tokens and non_embedding_parameters are known and it is not; tokens are where six_nd and
//   parameters are known, since who maps FLOPs to six_nd says that they are 6 N D.
// kInvalidArgument, with file, line, column and what to do: no header or no rows; two columns of one name that is used;
// a mapped column that is not there (with the nearest); a row with more or fewer fields than the header; text where a
// number belongs; no architecture; a cell that repeats another's architecture, size, shape and seed, or is equal to it
// in every field.
common::Result<Import> ImportCsv(std::string_view text, const ColumnMapping& mapping, const std::string& where);

// The same from one JSON object a line; members of members are named with dots ("config.lr"). Lines may have different
// members. true and false are 1 and 0; null is a missing value; lists are passed over.
common::Result<Import> ImportJsonLines(std::string_view text, const ColumnMapping& mapping, const std::string& where);

}  // namespace allometry::records
