#pragma once

#include <map>
#include <string>
#include <vector>

#include "allometry/v1/sweep.pb.h"
#include "allometry/v1/sweep_service.pb.h"

namespace allometry::coordinator {

// A parent whose outputs a cell needs, under the name by which the trainer finds them ("data", "model").
struct CellParent {
  std::string input_name;
  std::string identity;  // of the parent, which comes before its children in an expansion
};

// One resolved cell of a sweep: what a run is made of. Names, tags and costs are not part of its identity.
struct Cell {
  std::string name;  // "prepare", "<label>-<size>-s<seed>", the same with "-ft" or "-ft-<task>" behind it
  v1::RunKind kind = v1::RUN_KIND_UNSPECIFIED;
  std::string architecture;  // its label; empty for `prepare`
  std::string size;          // with what the axes changed, as in "small-nl16"; empty for `prepare`
  uint64_t seed = 0;
  std::string trainer;    // "builtin" or a name that workers allow
  std::string precision;  // "auto", "fp32" or "bf16"
  std::string identity;   // 64 hexadecimal digits
  std::string run_json;   // the `run` object of the trainer contract, as canonical JSON
  std::vector<CellParent> parents;
  v1::Costs costs;                      // zeros where nothing is known (prepare, trainers of one's own)
  std::vector<v1::ManifestFile> files;  // raw files that the trainer reads
  std::map<std::string, std::string> tags;
  // Ranks, no part of its identity; 0: the fewest of 1, 2, 4, … up to most_devices that fit.
  int64_t devices = 1;
  int64_t most_devices = 1;
  int64_t slots_per_gpu = 1;  // how many such runs share a GPU: 1, 2, 4, 8 or 16; no part of its identity either
};

}  // namespace allometry::coordinator
