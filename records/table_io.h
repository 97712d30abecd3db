#pragma once

#include <istream>
#include <ostream>

#include "common/json.h"
#include "common/result.h"
#include "records/records.h"

// Records as text. Doubles are written in the shortest form that reads back to the same value; non-finite ones as
// "nan", "inf" and "-inf".
namespace allometry::records {

// One JSON object: sweep, cell, architecture, size, shape, seed, state, reason, finetune_state, finetune_reason,
// device, metrics (object), scores (object by task of Score's members; null for a number that there is not), tags
// (object), excluded.
common::Json RecordToJson(const Record& record);
// Unknown keys are ignored; missing ones keep their defaults. `where` is put before an error's message.
common::Result<Record> RecordFromJson(const common::Json& json, const std::string& where);

// One object a line.
void WriteJsonLines(const Table& table, std::ostream& out);
common::Result<Table> ReadJsonLines(std::istream& in, const std::string& where);

// A header, then one line a record. Fixed columns first, then every metric that any record has (by name), then for
// every task <task>.value, .standard_error, .majority, .examples, .at_chance, then tag.<name>. A missing value is an
// empty field.
void WriteCsv(const Table& table, std::ostream& out);

}  // namespace allometry::records
