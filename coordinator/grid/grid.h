#pragma once

#include <vector>

#include "allometry/v1/sweep.pb.h"
#include "common/result.h"
#include "coordinator/core/cell.h"

namespace allometry::coordinator {

// The cells of a sweep, parents before children: `prepare` (built-in trainer), then per architecture, shape and seed
// the pretraining cell and, with a `finetuning` section, its fine-tuning cell or one a task. A pure function: equal
// arguments give equal cells everywhere. kInvalidArgument lists every mistake of the spec (coordinator/grid/check.h), a
// file that the manifest lacks, or two cells that would be the same run.
common::Result<std::vector<Cell>> Expand(const v1::SweepSpec& spec, const std::vector<v1::ManifestFile>& manifest);

}  // namespace allometry::coordinator
