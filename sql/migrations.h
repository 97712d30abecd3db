#pragma once

#include <vector>

namespace allometry::sql {

// The numbered files of this folder; the n-th (from 1) brings a database from version n - 1 to n.
extern const std::vector<const char*> kMigrations;

}  // namespace allometry::sql
