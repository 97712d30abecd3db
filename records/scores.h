#pragma once

#include "common/json.h"
#include "records/records.h"

namespace allometry::records {

// The `scores` of a trainer's result (docs/trainer-contract.md), by task. A trainer may send less: without `metrics` an
// entry's `metric` and `value` are its only one. Several entries of one task count with the mean of their values and
// the largest of their standard errors, and are at chance when all of them are. What is not of its type counts as not
// sent; an entry without `task` or `value` is no score.
TaskScores ScoresOfResult(const common::Json& list);

}  // namespace allometry::records
