#pragma once

#include <filesystem>
#include <string>

#include "records/records.h"

// Studies of any number of runs, drawn from a law, with the metrics and scores that a real run leaves.
namespace allometry::bench {

struct StudyShape {
  int architectures = 12, sizes = 2083, seeds = 4;
  int tasks = 2;  // scored for every run

  int runs() const { return architectures * sizes * seeds; }
  std::string Name() const;  // "12 architectures x 2083 sizes x 4 seeds"
};

// Loss = 1.7 + a / C^b with a and b of the architecture, and normal noise of 0.01 between seeds.
records::Table MadeUpTable(const StudyShape& shape);

// A new database of the program's schema with the same runs, as a coordinator leaves them: a pretraining run each, and
// one of fine-tuning when there are tasks. Throws std::runtime_error when the file cannot be written.
void WriteDatabase(const records::Table& table, const std::filesystem::path& path);

}  // namespace allometry::bench
