#pragma once

#include <cstdint>
#include <filesystem>

#include "common/json.h"
#include "common/result.h"
#include "worker/trainer/data/prepare_recipe.h"
#include "worker/trainer/tokenizer/tokenizer.h"

namespace allometry::trainer {

// Reads a task's files and writes its splits, tokenised, into `folder`/tasks, which exists (docs/data.md lists the
// files). Returns the task's object of data.json. `seed` and `number` (of the task in the recipe) are those of shuffled
// labels. kInvalidArgument: the tokenizer cannot spell a label; kNotFound, kDataLoss: the files.
common::Result<common::Json> PrepareTask(const TaskRecipe& recipe, size_t number, uint64_t seed,
                                         const Tokenizer& tokenizer, const std::filesystem::path& folder);

}  // namespace allometry::trainer
