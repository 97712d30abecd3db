#pragma once

#include <map>
#include <optional>
#include <string>

#include "allometry/v1/sweep_service.pb.h"

namespace allometry::cli {

// The part of its steps that a cell has done, in [0, 1].
double FractionDone(const v1::CellStatus& cell);

// Seconds that a running cell needs at its present speed; nothing when that is not known.
std::optional<double> SecondsLeftAtPresentSpeed(const v1::CellStatus& cell);

// Seconds until all of the cells are done; nothing while none has shown its speed, or none runs. Pure.
//
// A step is taken to last c x FLOPs^p, with c of its own for each kind of run and architecture. p lies between 0, where
// the time goes into starting operations, and 1, where it goes into arithmetic; small models are near the first, so a
// sweep that begins with them would by FLOPs alone seem to last many times as long as it does. p comes from the cells
// that are done at their first attempt and those that run, by least squares around a value in between, c from their
// geometric mean. What is left is spread over the cells that run now.
std::optional<double> EstimateSecondsLeft(const std::map<std::string, v1::CellStatus>& cells);

}  // namespace allometry::cli
