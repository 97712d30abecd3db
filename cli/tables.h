#pragma once

#include <string>
#include <vector>

#include "allometry/v1/analysis_service.pb.h"
#include "allometry/v1/sweep_service.pb.h"
#include "common/table.h"
#include "coordinator/core/cell.h"

// The tables of the reading verbs, made from the wire's messages. Column names are documented in docs/cli.md.
namespace allometry::cli {

common::Table CellsTable(const std::vector<v1::CellStatus>& cells);
common::Table SweepsTable(const std::vector<v1::Sweep>& sweeps);
common::Table WorkersTable(const std::vector<v1::WorkerInfo>& workers);
common::Table PlanTable(const v1::PlanResponse& plan, bool existing_known);
common::Table AttemptsTable(const std::vector<v1::AttemptInfo>& attempts);

// For people: a row per architecture, a column per slope, "0.541 ±0.032". Otherwise (`tidy`) a row per slope.
common::Table SlopesTable(const v1::SlopesResponse& slopes, bool tidy);
// With per_task: a row a task, a column an architecture: the slopes against FLOPs. No rows without.
common::Table TaskSlopesTable(const v1::SlopesResponse& slopes);
// A row a comparison, first minus second; no rows when none was asked for.
common::Table ComparisonsTable(const v1::SlopesResponse& slopes);
// What D is: "D mean score", "D mean of glue, superglue, squad".
std::string DownstreamText(const v1::Downstream& downstream);
// "2 cells left out: downstream: no score of glue_rte".
std::vector<std::string> LeftOutNotes(const google::protobuf::RepeatedPtrField<v1::LeftOut>& left_out);
// A row a region of the (first) cost: which architecture is best there.
common::Table RegionsTable(const v1::ParetoResponse& pareto);
common::Table ParetoTable(const v1::ParetoResponse& pareto, const v1::ParetoRequest& request);

}  // namespace allometry::cli
