#pragma once

#include <string>
#include <vector>

#include "allometry/v1/sweep.pb.h"

namespace allometry::coordinator {

// A mistake in a sweep: where ("sizes[2].d_model", empty for the whole), and a sentence that names what is allowed.
struct SpecProblem {
  std::string path;
  std::string message;
};

// Up to 64 letters, digits, '.', '_' and '-', starting with a letter, a digit or '_': what sweeps are called.
bool IsName(const std::string& text);

// Every single value: allowed words and ranges. A field that is not given is no mistake here.
std::vector<SpecProblem> CheckFields(const v1::SweepSpec& spec);

// CheckFields, what must be given, what excludes what, and whether every architecture can take every shape of the grid.
// A spec without problems expands (coordinator/grid/grid.h) with any manifest that has its files.
std::vector<SpecProblem> CheckSpec(const v1::SweepSpec& spec);

}  // namespace allometry::coordinator
