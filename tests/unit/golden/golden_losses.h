#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "common/json.h"

namespace allometry::trainer {

// The first fifty training losses of an architecture at nano with its default options (lengths, where they are options,
// follow the task): initial weights, forward and backward pass and optimiser in one line of numbers. A made-up task,
// whose frequencies are learnt within the run, so that each step's loss depends on the updates before it.
std::vector<double> GoldenRun(const std::string& architecture);

// The file that holds them, and what it says beside them.
std::filesystem::path GoldenPath(const std::filesystem::path& source_folder, const std::string& architecture);
common::Json GoldenFile(const std::string& architecture, const std::vector<double>& losses);

}  // namespace allometry::trainer
